"""Plans and the catalogue, laid out for people and for scripts. Decides nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .. import catalog, console, nano
from ..named import EMBEDDED
from ..tables import facts, sections, table
from . import embedded
from .download import SOURCES, Plan
from .fit import Fit

if TYPE_CHECKING:
    from rich.console import RenderableType


def plan(plan: Plan, fits: tuple[Fit, ...]) -> RenderableType:
    """The files of a plan, and whether they fit."""
    found, files = plan.listing, plan.files
    rows = [(each.path, console.size(each.size), "sha256" if each.sha256 else "git" if each.git_oid else "size only") for each in files]
    rooms = [(each.place, f"{each.verdict}: {console.size(each.needs_bytes)} of {_has(each)}") for each in fits]
    about = [("from", found.page or found.repo), ("commit", found.commit), ("licence", found.licence), ("to", str(plan.wanted.out))]
    total = (f"{len(files)} files", console.size(plan.bytes), "")
    return sections(("Files", table(("file", "size", "checked by"), [*rows, total])), ("Plan", facts([*about, *rooms])))


def _has(fit: Fit) -> str:
    return "an unknown amount" if fit.has_bytes is None else console.size(fit.has_bytes)


def plan_data(plan: Plan, fits: tuple[Fit, ...]) -> dict[str, Any]:
    """The same for scripts."""
    found = plan.listing
    return {
        "path": str(plan.wanted.out),
        **{name: getattr(found, name) for name in ("source", "repo", "revision", "commit", "licence")},
        "files": [{"path": each.path, "size": each.size, "sha256": each.sha256} for each in plan.files],
        "bytes": plan.bytes,
        "fits": [{**asdict(each), "verdict": each.verdict} for each in fits],
    }


def catalogue() -> RenderableType:
    """Every model that has a name here, one line each."""
    stored = sum(path.stat().st_size for path in nano.path().glob("*.safetensors"))
    rows = [[EMBEDDED, f"{stored / 2e6:.1f} M", "all", "text", "in this package", ""]]
    for each in catalog.entries():
        size = f"≈ {console.size(each.bytes)}" if each.bytes else "?"
        active = "all" if each.active == each.parameters else _count(each.active)
        rows.append(
            [each.name, _count(each.parameters), active, each.modality, size, " ".join(f"-{name.lower()}" for name in each.layouts)]
        )
    return table(("name", "parameters", "active", "takes", "to fetch", "endings"), rows)


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.3g} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"


def catalogue_data() -> list[dict[str, Any]]:
    """The same for scripts: with every name's repository on every hub."""
    return [
        {**asdict(entry), "bytes": entry.bytes, "repos": {name: _repos(entry, name) for name in entry.names}} for entry in catalog.entries()
    ]


def _repos(entry: catalog.Entry, name: str) -> dict[str, str]:
    return {source: entry.repo(name, source) for source in SOURCES if source != embedded.SOURCE}
