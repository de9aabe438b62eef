"""The door: a plan in, a quantised folder with its papers out. What happens in between is work.py's order of steps."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from .. import console
from ..model import Model, fingerprint, write_manifest
from ..staging import staged
from .options import Options
from .plan import Plan
from .plan import plan as planned


def quantize(model: Model | str | Path, to: str, out: Path, options: Options | None = None, *, force: bool = False) -> Model:
    """`ernie quantize MODEL --to SCHEME -o OUT` as a call: plan and run. Raises what they raise."""
    source = model.path if isinstance(model, Model) else model
    return run(planned(source, to=to, out=out, options=options), force=force)


def run(plan: Plan, *, force: bool = False) -> Model:
    """Do the work of a plan, or nothing where it is done already. Returns the model in `plan.out`.

    Raises InputError for data or weights that cannot be used, UnsupportedError where there is nothing to quantise, QualityError
    (exit 6) where `max_drop` cannot be met.
    """
    if plan.up_to_date and not force:
        console.info(f"{plan.out} is up to date")
        return Model.open(plan.out)
    from .work import Work

    with staged(plan.out) as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        made = Work(plan, scratch).run()
        for file in list(made.folder.iterdir()):
            file.rename(folder / file.name)
        shutil.rmtree(scratch)
        _sign(plan, folder)
    return Model.open(plan.out)


def _sign(plan: Plan, folder: Path) -> None:
    """Complete the manifest with where the model comes from and by which command."""
    source = plan.source
    made_from = {"path": str(source.path.absolute()), "format": source.format, "fingerprint": fingerprint(source.path)}
    known = {key: value for key, value in Model.open(folder).manifest.items() if key != "ernie"}
    made_by = {"command": "quantize", "scheme": plan.scheme.name, "options": asdict(plan.options)}
    write_manifest(folder, **{**known, "made_from": made_from, "made_by": made_by, "key": plan.key})
