"""What bench_gpu.py found, as Markdown for RESULTS.md: the card and the versions, the table, the goals, and what was not run and why."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import rounds

from ernie_cli import nvml

#: Of the issue that asked for these runtimes: at batch 1.
GOAL_SHARE, GOAL_TIMES = 0.6, 2.0
_PACKAGES = (
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt-rtx-cu12-bindings",
    "tensorrt-rtx-cu13-bindings",
    "tensorrt",
    "torch",
    "transformers",
)

Row = Mapping[str, Any]


def facts(args: argparse.Namespace, on: str, no_gpu: str, bandwidth: float) -> dict[str, str]:
    """What the figures were taken on."""
    driver, machine = nvml.read(), rounds.machine()
    card = driver.gpus[0].name if on == "cuda" and driver.gpus else f"none ({no_gpu or '--device cpu'})"
    versions = [f"{name} {number}" for name in _PACKAGES if (number := _version(name))]
    return {
        "card": card,
        "driver": f"{driver.version}, CUDA {driver.cuda}" if driver.version else "",
        "processor": f"{machine['cpu']}, {machine['cores']} cores",
        "versions": ", ".join([*versions, f"Python {platform.python_version()}"]),
        "copy bandwidth": f"{bandwidth / 1e9:.4g} GB/s, read and written" if bandwidth else "",
        "a round": f"prompts of {args.prompt} tokens, {args.new} more one by one; medians of {args.rounds} rounds in turns",
    }


def text(found: Mapping[str, str], rows: Sequence[Row], missing: Sequence[tuple[str, str]], *, claims: bool) -> str:
    """The whole section. claims: the figures are a GPU's and may be held against the goals."""
    said = [f"- {name}: {value}" for name, value in found.items() if value]
    left_out = [f"- {part}: not run: {reason}" for part, reason in missing]
    goals = _goals(rows) if claims and rows else ["The goals (batch 1: 60 % of the bandwidth, 2 × eager) are a GPU's: nothing is claimed."]
    parts = [["## Decoders on a GPU (`bench_gpu.py`)"], said, _table(rows), _places(rows), goals, left_out]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    speeds = ["prefill tok/s", "first token ms", "decode tok/s", "MB per step"]
    names = ["model", "precision", "batch", "", *speeds, "of bandwidth", "× eager", "same choices"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        figures = [f"{row['prefill']:.4g}", f"{row['first_ms']:.3g}", f"{row['decode']:.4g}", f"{row['mb_per_step']:.4g}"]
        shares = [_or_dash(row["share"], ".1%"), _or_dash(row["times_eager"], ".2f"), _or_dash(row["same"], ".0%")]
        lines.append("| " + " | ".join([row["model"], row["precision"], str(row["batch"]), row["runtime"], *figures, *shares]) + " |")
    return lines


def _places(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(f"- {row['runtime']}: {row['about']}" for row in rows))


def _goals(rows: Sequence[Row]) -> list[str]:
    """The best of ours at batch 1, for each model and precision."""
    found = [f"Goals at batch 1: {GOAL_SHARE:.0%} of the bandwidth, {GOAL_TIMES:g} × transformers eager.", ""]
    for key in dict.fromkeys((row["model"], row["precision"]) for row in rows):
        ours = [row for row in rows if (row["model"], row["precision"], row["batch"]) == (*key, 1) and "transformers" not in row["runtime"]]
        if ours:
            best = max(ours, key=lambda row: row["decode"])
            share, times = best["share"] or 0, best["times_eager"] or 0
            words = f"{share:.0%} of the bandwidth ({_met(share >= GOAL_SHARE)}), {times:.1f} × eager ({_met(times >= GOAL_TIMES)})"
            found.append(f"- {' '.join(key)}: {best['runtime']}: {words}")
    return found


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _met(yes: bool) -> str:
    return "met" if yes else "missed"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
