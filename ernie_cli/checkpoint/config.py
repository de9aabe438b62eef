"""config.json of an ERNIE 4.5 checkpoint, old and new spellings, as one frozen dataclass. Does not look at tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, UnsupportedError
from ..model import read_json

#: model_type → whether `read_config` takes it. Spellings seen in published configs (ernie45.md §2).
DENSE = ("ernie4_5", "ernie4_5_text", "ernie")
KNOWN_LATER = ("ernie4_5_moe", "ernie4_5_vl_moe", "ernie4_5_moe_vl", "ernie4_5_vl", "ernie4_5_vl_moe_text")
#: More than any model has, little enough that a hostile config cannot make us list names for hours.
_MOST_LAYERS = 4096
_LARGEST = 1 << 30


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
    theta, ratio = _rope(fields, where)
    config = Config(
        model_type="ernie4_5",
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
        hidden_act=fields.text("hidden_act", default="silu"),
        bos_id=fields.token("bos_token_id"),
        eos_ids=fields.tokens("eos_token_id"),
        pad_id=fields.token("pad_token_id"),
        dtype=fields.text("dtype" if raw.get("dtype") else "torch_dtype", default="").removeprefix("torch."),
        raw=raw,
    )
    _check_consistency(config, fields.problems)
    if fields.problems:
        raise InputError(f"{where}: " + "; ".join(fields.problems), "compare it with the config.json of the published model")
    if config.hidden_act != "silu":
        raise UnsupportedError(f"{where}: hidden_act `{config.hidden_act}`; ERNIE 4.5 has `silu` only", "is it the right model?")
    return config


def _check_type(raw: Mapping[str, Any], where: str) -> None:
    model_type = raw.get("model_type")
    if model_type in DENSE and not raw.get("moe_num_experts"):
        return
    if model_type in (*KNOWN_LATER, *DENSE):
        what = f"{where}: `{model_type}` is a mixture-of-experts or vision-language model, which is not yet convertible: dense only"
        raise UnsupportedError(what, "the dense model is `ernie download ernie-4.5-0.3b`")
    said = f"unknown model_type {model_type!r}" if model_type is not None else "no model_type"
    raise UnsupportedError(f"{where}: {said}", f"ernie converts {DENSE[0]} (dense ERNIE 4.5) checkpoints")


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
        raise UnsupportedError(f"{where}: RoPE variant {kind!r}", "ernie knows the published ERNIE 4.5 RoPE (`default`, `linear`)")
    if new.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise UnsupportedError(f"{where}: partial_rotary_factor {new['partial_rotary_factor']!r}", "ERNIE 4.5 rotates the whole head")
    return scaling.number("rope_theta", default=500000.0), ratio


def _check_consistency(config: Config, problems: list[str]) -> None:
    if config.num_heads % config.num_kv_heads:
        problems.append(f"num_attention_heads {config.num_heads} is no multiple of num_key_value_heads {config.num_kv_heads}")
    if config.head_dim % 2:
        problems.append(f"head_dim {config.head_dim} is odd: RoPE turns pairs")
    ids = [("bos", config.bos_id), ("pad", config.pad_id), *(("eos", id) for id in config.eos_ids)]
    problems += [
        f"{name}_token_id {id} is outside the vocabulary of {config.vocab_size}" for name, id in ids if id and id >= config.vocab_size
    ]


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
            self.problems.append(f"{name} must be a whole number from 1 to {most}, not {_short(value)}")
            return 2  # any value the checks after this one can compute with
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number above 0."""
        value = self.raw.get(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not 0 < value < 1e30 or not math.isfinite(value):
            self.problems.append(f"{name} must be a number above 0, not {_short(value)}")
            return default
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw.get(name)
        if value is not None and type(value) is not bool:
            self.problems.append(f"{name} must be true or false, not {_short(value)}")
        return default if value is None else bool(value)

    def text(self, name: str, default: str) -> str:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, str):
            self.problems.append(f"{name} must be a string, not {_short(value)}")
        return value if isinstance(value, str) else default

    def token(self, name: str) -> int | None:
        return next(iter(self.tokens(name)), None)

    def tokens(self, name: str) -> tuple[int, ...]:
        """One token id or a list of them; -1, null and absent mean none."""
        value = self.raw.get(name)
        listed = value if isinstance(value, list) else [] if value is None or value == -1 else [value]
        if any(type(id) is not int or id < 0 for id in listed):
            self.problems.append(f"{name} must be a token id or a list of them, not {_short(value)}")
            return ()
        return tuple(listed)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
