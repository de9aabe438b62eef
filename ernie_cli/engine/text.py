"""What people read of a build: its plan with the memory it foresees, and its result. An engine's papers are inspect/engine.py's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console
from ..model import Model
from .plan import Plan

if TYPE_CHECKING:
    from rich.console import RenderableType


def plan_text(plan: Plan) -> str:
    """What is built for what by which library and why, and what it will need."""
    lines = [
        f"{plan.source.path} ({plan.source.format}) → {plan.precision} engine for {plan.device.title} → {plan.out}",
        f"  library     {plan.library.name} {plan.library.version}: {plan.why}",
        f"  compiled for {', '.join(f'compute capability {each}' for each in plan.capabilities) or 'all that the library compiles for'}",
        *(f"  profile     {profile.name}: {_shapes(profile.shapes)}" for profile in plan.shapes.profiles),
        *(f"  {name:<11} {console.size(value)}" for name, value in _sizes(plan.prediction.as_dict())),
        f"  to build    {console.size(plan.prediction.host_peak_bytes)} of memory, {console.size(plan.prediction.disk_bytes)} of disk",
        f"  activations {', '.join(f'{name} {console.size(value)}' for name, value in plan.prediction.activation_bytes.items())}",
    ]
    return "\n".join([*lines, "  up to date: nothing to do"] if plan.up_to_date else lines)


def _shapes(shapes: Mapping[str, Any]) -> str:
    """Ranges of the inputs; of decoders' many caches none, they are the same."""
    shown = [
        f"{name} {'x'.join(map(str, low))} to {'x'.join(map(str, high))}"
        for name, (low, _, high) in shapes.items()
        if not name.startswith("cache.")
    ]
    return ", ".join(shown) or "fixed shapes"


def _sizes(prediction: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The figures in bytes, for people: ("device_total", …) → ("on device", …)."""
    names = {
        "weight_bytes": "weights",
        "cache_bytes": "cache",
        "plan_bytes": "plan file",
        "device_total": "on device",
    }
    return [(said, int(prediction[name])) for name, said in names.items() if prediction.get(name)]


def show(path: Path, made: Model, *, up_to_date: bool) -> None:
    """Predicted and reported figures of a finished build, and last where the engine lies."""
    if not console.settings.json:
        console.result(_table(made))
    console.result(str(path), data={"path": str(made.path), "up_to_date": up_to_date, **made.manifest})


def show_again(made: Model) -> None:
    """The last check of an engine that was verified or refitted."""
    checks = made.checks
    verdict = {True: "passed", False: "FAILED", None: "not verified"}[checks[-1].get("passed")] if checks else "not verified"
    console.result(f"{made.path}: {verdict}", data={"path": str(made.path), "checks": checks})


def _table(made: Model) -> RenderableType:
    from ..inspect.engine import summary

    return summary(made)
