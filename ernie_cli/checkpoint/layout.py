"""The two layouts of one checkpoint as one table: what a tensor is called, how it is shaped and how it lies in either.

One rule serves both directions, the checker and the reader: `paddle = concatenate(hf tensors, axis=0)`, transposed where
`turned`. Reads and writes no tensor. Mixture-of-experts rows will be further rules; nothing else here is about density.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError, UnsupportedError
from .config import Config
from .quote import some
from .shards import read_folder

Layout = Literal["hf", "paddle"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """One paddle tensor and the transformers tensors it is made of.

    `parts`: transformers name → shape there, in names of dimensions (see `dimensions`), in the order of concatenation.
    `turned`: linear weights are [in, out] in paddle, [out, in] in transformers (for a bias the turn does nothing).
    `when`: the config flag that decides whether the tensor exists ("" = always, "not x" = where x is false).
    """

    paddle: str
    parts: tuple[tuple[str, tuple[str, ...]], ...]
    turned: bool = False
    when: str = ""


def _linear(paddle: str, names: tuple[str, ...], outs: tuple[str, ...], inner: str) -> tuple[Rule, Rule]:
    """A projection's weight and, where the config has use_bias, its bias. `paddle` and `names` are relative to the layer."""
    weights = tuple((f"model.layers.{{n}}.{name}.weight", (out, inner)) for name, out in zip(names, outs, strict=True))
    biases = tuple((f"model.layers.{{n}}.{name}.bias", (out,)) for name, out in zip(names, outs, strict=True))
    prefix = f"ernie.layers.{{n}}.{paddle}"
    return Rule(f"{prefix}.weight", weights, turned=True), Rule(f"{prefix}.bias", biases, turned=True, when="use_bias")


def _same(name: str, *shape: str) -> Rule:
    return Rule(f"ernie.{name}", ((f"model.{name}", shape),))


#: ernie45.md §4. `{n}` runs over the layers.
TABLE: tuple[Rule, ...] = (
    _same("embed_tokens.weight", "vocab", "hidden"),
    _same("layers.{n}.input_layernorm.weight", "hidden"),
    *_linear("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("q", "kv", "kv"), "hidden"),
    *_linear("self_attn.o_proj", ("self_attn.o_proj",), ("hidden",), "q"),
    _same("layers.{n}.post_attention_layernorm.weight", "hidden"),
    *_linear("mlp.up_gate_proj", ("mlp.gate_proj", "mlp.up_proj"), ("inner", "inner"), "hidden"),
    *_linear("mlp.down_proj", ("mlp.down_proj",), ("hidden",), "inner"),
    _same("norm.weight", "hidden"),
    Rule("lm_head.weight", (("lm_head.weight", ("vocab", "hidden")),), turned=True, when="not tie_word_embeddings"),
)


def dimensions(config: Config) -> dict[str, int]:
    """The names of dimensions in TABLE → number of elements."""
    return {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "inner": config.intermediate_size,
        "q": config.num_heads * config.head_dim,
        "kv": config.num_kv_heads * config.head_dim,
    }


@dataclass(frozen=True)
class Part:
    """A transformers tensor: rows `first_row` … of the concatenation that (turned or not) is the paddle tensor."""

    name: str
    shape: Shape
    first_row: int


@dataclass(frozen=True)
class Tensor:
    """One row of the table for one layer: a paddle tensor, its shape there, and its transformers parts."""

    paddle: str
    shape: Shape
    parts: tuple[Part, ...]
    turned: bool

    def names(self, layout: Layout) -> tuple[str, ...]:
        """What it is called in a layout."""
        return (self.paddle,) if layout == "paddle" else tuple(part.name for part in self.parts)

    def shapes(self, layout: Layout) -> dict[str, Shape]:
        """What it is called in a layout → its shape there."""
        return {self.paddle: self.shape} if layout == "paddle" else {part.name: part.shape for part in self.parts}


def tensors(config: Config) -> list[Tensor]:
    """Every tensor of the model, in the order in which the model uses them."""
    sizes = dimensions(config)
    layer_rules = [rule for rule in TABLE if "{n}" in rule.paddle]
    first = TABLE.index(layer_rules[0])
    rows: list[tuple[Rule, int]] = [(rule, 0) for rule in TABLE[:first]]
    rows += [(rule, n) for n in range(config.num_layers) for rule in layer_rules]
    rows += [(rule, 0) for rule in TABLE[first:] if rule not in layer_rules]
    return [_tensor(rule, n, sizes) for rule, n in rows if _exists(rule, config)]


def _exists(rule: Rule, config: Config) -> bool:
    flag = rule.when.removeprefix("not ")
    return not flag or bool(getattr(config, flag)) != rule.when.startswith("not ")


def _tensor(rule: Rule, n: int, sizes: dict[str, int]) -> Tensor:
    parts, row = [], 0
    for name, dims in rule.parts:
        shape = tuple(sizes[dim] for dim in dims)
        parts.append(Part(name.format(n=n), shape, row))
        row += shape[0]
    whole: Shape = (row, *parts[0].shape[1:])
    return Tensor(rule.paddle.format(n=n), whole[::-1] if rule.turned else whole, tuple(parts), rule.turned)


def layout_of_names(names: Iterable[str], where: str) -> Layout:
    """Which layout tensors of these names are in: paddle's start with `ernie.`, transformers' with `model.`.

    Raises InputError where they are of neither, or of both.
    """
    prefixes = {name.split(".", 1)[0] for name in names}
    found: list[Layout] = [layout for layout, prefix in _PREFIXES if prefix in prefixes]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{where}: tensors of both layouts (`ernie.…` and `model.…`) in one checkpoint", "are there two models in the folder?"
        )
    raise InputError(
        f"{where}: not an ERNIE 4.5 checkpoint: it holds {some(sorted(names)) or 'no tensor'}",
        "tensors called `model.…` or `ernie.…` were expected",
    )


_PREFIXES: tuple[tuple[Layout, str], ...] = (("paddle", "ernie"), ("hf", "model"))


def layout_of(path: str | Path) -> Layout:
    """The layout of a checkpoint folder (or one safetensors file), from its tensors' names alone.

    Raises InputError where the files are broken or hold something else. `.pdparams` files are only ever Paddle's.
    """
    path = Path(path)
    try:
        return layout_of_names(read_folder(path), str(path))
    except UnsupportedError:
        return "paddle"
