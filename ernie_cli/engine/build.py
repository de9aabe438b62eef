"""The door: a plan in, an engine with its papers out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

from .. import console
from ..errors import ErnieError, UsageError
from ..model import Model, fingerprint, write_manifest
from ..staging import staged
from . import builder, layers, papers, precision, shapes
from .options import Flags, Options
from .plan import Plan
from .plan import plan as planned
from .request import Request
from .shapes import Shapes


def build(model: str | Path, device: str, out: Path, options: Options | None = None, *, force: bool = False) -> Model:
    """`ernie build MODEL --device DEVICE -o OUT` as a call: plan and run. Raises what they raise."""
    return run(planned(model, device=device, out=out, options=options), force=force)


def run(plan: Plan, *, force: bool = False) -> Model:
    """Do the work of a plan, or nothing where it is done already. Returns the engine in `plan.out`.

    Raises UnsupportedError (4) with all that the parser refuses, ResourceError (7) where memory ran out, QualityError (6) where
    the engine is not the same model, and what converting and quantising raise.
    """
    if plan.up_to_date and not force:
        console.info(f"{plan.out} is up to date")
        return Model.open(plan.out)
    console.info(f"an engine in {plan.precision} for {plan.device.title}, by {plan.library.title}: {plan.why}")
    with staged(plan.out) as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        with _said_of_the_source(plan, scratch):
            graph = precision.prepare(plan.source, plan.options, scratch)
            lengths = shapes.shapes(graph, plan.options)  # of the graph that was made, not of the checkpoint
            built = builder.build(_request(plan, graph, lengths), folder)
        facts = layers.read(built.log, graph.main_file())
        built.log.unlink()
        papers.write(
            folder,
            source=plan.source,
            graph=graph,
            plan=plan,
            built=built,
            facts=facts,
            prediction=plan.prediction,
            checks=graph.checks,
            shapes=lengths,
        )
        _verify(plan, folder, graph)
        shutil.rmtree(scratch)
        _sign(plan, folder)
    return Model.open(plan.out)


@contextmanager
def _said_of_the_source(plan: Plan, scratch: Path) -> Iterator[None]:
    """What is wrong with a graph on its way, which is gone when the message is read, is said of the model it was made of."""
    try:
        yield
    except ErnieError as err:
        graph = re.compile(re.escape(str(scratch)) + r"/\w+(/model\.onnx)?")
        err.message, err.hint = (graph.sub(lambda _: str(plan.source.path), text) for text in (err.message, err.hint))
        raise


def _request(plan: Plan, graph: Model, lengths: Shapes) -> Request:
    return Request(
        graph=str(graph.main_file()),
        library=plan.library.name,
        capabilities=plan.capabilities,
        fixed=lengths.fixed,
        profiles=lengths.profiles,
        **{each.name: getattr(plan.options, each.name) for each in fields(Flags)},
    )


def _verify(plan: Plan, folder: Path, graph: Model) -> None:
    """Compare the engine with its graph where this machine's GPU can run it; elsewhere the record says that nobody has."""
    from . import verify

    why_not = "--no-verify" if not plan.options.verify else verify.why_not(Model.open(folder))
    check = {"name": "parity", "passed": None, "why": why_not} if why_not else verify.check(Model.open(folder), graph)
    if why_not:
        console.info(f"not verified: {why_not}; `ernie build --verify {plan.out}` does it on the device")
    known = {key: value for key, value in Model.open(folder).manifest.items() if key != "ernie"}
    write_manifest(folder, **{**known, "checks": [*known.get("checks", []), check]})


def _sign(plan: Plan, folder: Path) -> None:
    """Complete the manifest with where the model comes from and by which command."""
    source = plan.source
    made_from = {"path": str(source.path.absolute()), "format": source.format, "fingerprint": fingerprint(source.path)}
    known = {key: value for key, value in Model.open(folder).manifest.items() if key != "ernie"}
    write_manifest(
        folder,
        **{
            **known,
            "made_from": made_from,
            "made_by": {"command": "build", "device": plan.device.name, "options": asdict(plan.options)},
            "key": plan.key,
        },
    )


def again(engine: Path, *, verify: bool = False, refit_from: Path | None = None, out: Path | None = None) -> Model:
    """`ernie build --verify ENGINE`, or with `refit_from` new weights for it in `out`. Both need a GPU.

    Raises UsageError where `engine` is none or no place is given, QualityError (6) where it is not the model it was built from.
    """
    from . import refit
    from . import verify as verifier

    model = Model.open(engine)
    if model.format != "engine":
        raise UsageError(f"{engine} is {model.format}, no engine", f"ernie build {engine} --device … -o OUT makes one")
    if refit_from is None:
        return verifier.verify(engine)
    if verify or out is None:
        raise UsageError(
            "--refit-from writes a new engine: it needs -o, and no --verify", f"ernie build {engine} --refit-from {refit_from} -o OUT"
        )
    return refit.refit(model, Model.open(refit_from), out)
