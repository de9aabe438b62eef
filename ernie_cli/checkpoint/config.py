"""config.json of an ERNIE 4.5 checkpoint, old and new spellings, as one frozen dataclass. Does not look at tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, UnsupportedError
from ..model import read_json
from .quote import short

#: Spellings of model_type and of architectures in published configs, old and new.
DENSE = "ernie4_5"
_DENSE_ARCHITECTURES = ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM")
_LATER = ("ernie4_5_moe", "ernie4_5_vl_moe", "ernie4_5_moe_vl")
_LATER_ARCHITECTURES = ("Ernie4_5_MoeForCausalLM", "Ernie4_5_VLMoeForConditionalGeneration", "Ernie4_5_VLMoeForConditionalGenerationModel")
_OLD_TYPES = (None, "ernie")  # Paddle configs of 2025 leave it out or say `ernie`, as do those of the BERT-like models of 2019
_ACTIVATIONS = {"swiglu": "silu"}  # PaddleFormers names the gated whole, transformers the function in it
#: More than any model has, little enough that a hostile config cannot make us list names for hours.
_MOST_LAYERS = 4096
_LARGEST = 1 << 30
_MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Config:
    """What the decoder's arithmetic needs. Sizes are counts of elements; `raw` is config.json as it stands."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    compression_ratio: float  # RoPE positions are divided by it
    max_positions: int
    tie_word_embeddings: bool
    use_bias: bool
    hidden_act: str
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None
    dtype: str  # bfloat16, float16, float32, or "" where config.json does not say
    raw: Mapping[str, Any] = field(repr=False, compare=False)


def read_config(folder: str | Path) -> Config:
    """Read `folder`/config.json.

    Raises InputError where it is missing, broken or holds impossible values (all of them listed at once), and
    UnsupportedError for an architecture or variant that is not dense ERNIE 4.5.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise InputError(f"{folder}: no config.json", "fetch the whole repository again: `ernie download`")
    return parse_config(read_json(file), str(file))


def parse_config(raw: Mapping[str, Any], where: str = "config.json") -> Config:
    """The same from a dict; `where` names it in messages."""
    _check_type(raw, where)
    fields = _Fields(raw)
    heads = fields.count("num_attention_heads")
    hidden = fields.count("hidden_size")
    activation = fields.text("hidden_act", default="silu")
    theta, ratio = _rope(fields, where)
    config = Config(
        model_type=DENSE,
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        num_layers=fields.count("num_hidden_layers", most=_MOST_LAYERS),
        num_heads=heads,
        num_kv_heads=fields.count("num_key_value_heads", default=heads),
        head_dim=fields.count("head_dim", default=max(hidden // max(heads, 1), 1)),
        rms_norm_eps=fields.number("rms_norm_eps", default=1e-5),
        rope_theta=theta,
        compression_ratio=ratio,
        max_positions=fields.count("max_position_embeddings", default=131072),
        tie_word_embeddings=fields.flag("tie_word_embeddings", default=True),
        use_bias=fields.flag("use_bias", default=False),
        hidden_act=_ACTIVATIONS.get(activation, activation),
        bos_id=fields.token("bos_token_id"),
        eos_ids=fields.tokens("eos_token_id"),
        pad_id=fields.token("pad_token_id"),
        dtype=fields.text("dtype" if raw.get("dtype") else "torch_dtype", default="").removeprefix("torch."),
        raw=raw,
    )
    _check_consistency(config, fields.problems)
    if fields.problems:
        raise InputError(
            f"{where}: " + "; ".join(fields.problems[:_MOST_PROBLEMS]), "compare it with the config.json of the published model"
        )
    if config.hidden_act != "silu":
        raise UnsupportedError(f"{where}: hidden_act `{short(config.hidden_act)}`; ERNIE 4.5 has `silu` only", "is it the right model?")
    return config


def _check_type(raw: Mapping[str, Any], where: str) -> None:
    """Raise UnsupportedError unless this is dense ERNIE 4.5 with weights as they were trained."""
    model_type, architectures = raw.get("model_type"), raw.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    later = model_type in _LATER or architecture in _LATER_ARCHITECTURES
    dense = model_type == DENSE or (model_type in _OLD_TYPES and architecture in _DENSE_ARCHITECTURES)
    if later or (dense and raw.get("moe_num_experts")):
        kind = short(model_type or architecture)
        what = f"{where}: `{kind}` is a mixture-of-experts or vision-language model, not yet convertible: dense only"
        raise UnsupportedError(what, "the dense model is `ernie download ernie-4.5-0.3b`")
    if not dense:
        said = "no model_type" if model_type is None else f"unknown model_type {short(model_type)}"
        raise UnsupportedError(f"{where}: {said}", f"ernie knows `{DENSE}`, the dense ERNIE 4.5: `ernie download ernie-4.5-0.3b`")
    if raw.get("quantization_config"):
        raise UnsupportedError(f"{where}: the weights are quantised already", "start from the bf16 model: `ernie download ernie-4.5-0.3b`")
    if raw.get("use_rmsnorm") is False:
        raise UnsupportedError(f"{where}: LayerNorm in place of RMSNorm", "no published ERNIE 4.5 has it: is it the right model?")


def _rope(fields: _Fields, where: str) -> tuple[float, float]:
    """(theta, what positions are divided by) from rope_parameters (new) or rope_theta, rope_scaling, compression_ratio (old)."""
    ratio = fields.number("compression_ratio", default=1.0)
    new = fields.raw.get("rope_parameters") or fields.raw.get("rope_scaling") or {}
    if not isinstance(new, Mapping):
        fields.problems.append(f"rope_parameters must be an object, not {type(new).__name__}")
        new = {}
    scaling = _Fields({"rope_theta": fields.raw.get("rope_theta"), **new}, fields.problems)
    kind = new.get("rope_type") or new.get("type") or "default"
    if kind == "linear":  # position / factor, the same arithmetic under another name
        ratio *= scaling.number("factor", default=1.0)
    elif kind != "default":
        raise UnsupportedError(f"{where}: RoPE variant `{short(kind)}`", "ernie knows the published ERNIE 4.5 RoPE (`default`, `linear`)")
    if new.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise UnsupportedError(f"{where}: partial_rotary_factor {short(new['partial_rotary_factor'])}", "ERNIE 4.5 rotates the whole head")
    return scaling.number("rope_theta", default=500000.0), ratio


def _check_consistency(config: Config, problems: list[str]) -> None:
    if config.num_heads % config.num_kv_heads:
        problems.append(f"num_attention_heads {config.num_heads} is no multiple of num_key_value_heads {config.num_kv_heads}")
    if config.head_dim % 2:
        problems.append(f"head_dim {config.head_dim} is odd: RoPE turns pairs")
    ids = [("bos", config.bos_id), ("pad", config.pad_id), *(("eos", id) for id in config.eos_ids)]
    known = [(name, id) for name, id in ids if id is not None]
    out = [(name, id) for name, id in known if id >= config.vocab_size]
    problems += [f"{name}_token_id {id} is outside the vocabulary of {config.vocab_size}" for name, id in out]


class _Fields:
    """Typed access to a JSON object that collects what is wrong instead of stopping at the first."""

    def __init__(self, raw: Mapping[str, Any], problems: list[str] | None = None) -> None:
        self.raw = raw
        self.problems: list[str] = [] if problems is None else problems

    def count(self, name: str, default: int | None = None, most: int = _LARGEST) -> int:
        """A whole number from 1 to `most`; null and absent give the default, or a problem where there is none."""
        value = self.raw.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 1 <= value <= most:
            self.problems.append(f"{name} must be a whole number from 1 to {most}, not {short(value)}")
            return 2  # any value the checks after this one can compute with
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number above 0."""
        value = self.raw.get(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not 0 < value < 1e30 or not math.isfinite(value):
            self.problems.append(f"{name} must be a number above 0, not {short(value)}")
            return default
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw.get(name)
        if value is not None and type(value) is not bool:
            self.problems.append(f"{name} must be true or false, not {short(value)}")
        return default if value is None else bool(value)

    def text(self, name: str, default: str) -> str:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, str):
            self.problems.append(f"{name} must be a string, not {short(value)}")
        return value if isinstance(value, str) else default

    def token(self, name: str) -> int | None:
        return next(iter(self.tokens(name)), None)

    def tokens(self, name: str) -> tuple[int, ...]:
        """One token id or a list of them; -1, null and absent mean none."""
        value = self.raw.get(name)
        listed = value if isinstance(value, list) else [] if value is None or value == -1 else [value]
        if any(type(id) is not int or id < 0 for id in listed):
            self.problems.append(f"{name} must be a token id or a list of them, not {short(value)}")
            return ()
        return tuple(listed)
