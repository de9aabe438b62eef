"""What a reply cost: the fields of --json and the line under a reply. Measures nothing itself but the process's memory."""

from __future__ import annotations

import resource
import sys
from typing import Any

from ..runtime import SessionInfo
from .reply import Reply


def peak_memory_mb() -> float:
    """The most memory this process ever held, in 10^6 bytes. ru_maxrss counts KiB on Linux, bytes on macOS (getrusage(2))."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def record(reply: Reply, info: SessionInfo) -> dict[str, Any]:
    """A reply as --json gives it. Speeds are None where there is nothing to divide: no token, or only one.

    The first token counts as prefill (it comes out of the prompt's last step), the others as decode.
    """
    timing = reply.timing
    first_s = timing.first - timing.begun if reply.token_ids else None
    return {
        "text": reply.text,
        "token_ids": reply.token_ids,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": len(reply.prompt),
        "time_to_first_token_ms": None if first_s is None else round(first_s * 1e3, 3),
        "prefill_tokens_per_s": _rate(timing.computed, first_s),
        "decode_tokens_per_s": _rate(len(reply.token_ids) - 1, timing.last - timing.first),
        "peak_memory_mb": peak_memory_mb(),
        "backend": info.backend,
        "device": info.device,
        "seed": None if reply.options.sampling.greedy else reply.options.sampling.seed,
    }


def _rate(count: int, seconds: float | None) -> float | None:
    return round(count / seconds, 3) if seconds and count > 0 else None


def line(facts: dict[str, Any]) -> str:
    """The same in one line for people."""

    def speed(name: str) -> str:
        return "–" if facts[name] is None else f"{facts[name]:.1f} tok/s"

    first = "–" if facts["time_to_first_token_ms"] is None else f"{facts['time_to_first_token_ms']:.0f} ms"
    return (
        f"{facts['prompt_tokens']} + {len(facts['token_ids'])} tokens ({facts['finish_reason']}) · first after {first}"
        f" · prefill {speed('prefill_tokens_per_s')} · decode {speed('decode_tokens_per_s')}"
        f" · peak {facts['peak_memory_mb']:.0f} MB · {facts['backend']} on {facts['device']}"
    )
