"""Which nodes of a session on a GPU run on the CPU all the same, as onnxruntime itself tells (1.25 and newer).

Shape arithmetic belongs there: it is done before the GPU begins. Anything else costs a round trip per step.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from .. import console
from .place import CPU, Place

#: What computes shapes out of shapes. onnxruntime puts such nodes on the CPU on purpose.
SHAPES = frozenset({"Shape", "Size", "Squeeze", "Unsqueeze", "Gather", "Concat", "Slice", "Cast", "Add", "Sub", "Mul", "Div", "Range"})


@dataclass(frozen=True)
class Fallen:
    """total: nodes of the graph as it runs. by_type: operator → how many of them run on the CPU."""

    total: int
    by_type: dict[str, int]

    def __str__(self) -> str:
        names = ", ".join(f"{count} {name}" for name, count in sorted(self.by_type.items(), key=lambda pair: (-pair[1], pair[0])))
        return f"{sum(self.by_type.values())} of {self.total} nodes run on the CPU{f': {names}' if names else ''}"

    @property
    def arithmetic(self) -> dict[str, int]:
        """Those that are no shape arithmetic by their operator."""
        return {name: count for name, count in self.by_type.items() if name not in SHAPES}


def record(options: Any, where: Place, *, always: bool = False) -> None:
    """Have a session remember who runs what. It costs little, but only -v asks (or `always`)."""
    if always or (where.kind != "cpu" and console.settings.verbosity > 0):
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")


def fallen(session: Any) -> Fallen | None:
    """What runs on the CPU; None where onnxruntime is too old to tell, or was not asked to `record`."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return None
    try:
        parts = ask()
    except Exception as err:
        if not type(err).__module__.startswith("onnxruntime"):
            raise
        return None
    placed = [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]
    return Fallen(len(placed), dict(Counter(kind for provider, kind in placed if provider == CPU)))


def say(session: Any, where: Place) -> None:
    """With -v, how much of a GPU's session is left to the CPU."""
    if where.kind == "cpu" or console.settings.verbosity <= 0:
        return
    found = fallen(session)
    console.detail(f"{where.title}: {found if found else 'this onnxruntime does not tell which nodes run on the CPU'}")
