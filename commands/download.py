"""`ernie download`: a model's files from a hub, or the catalogue of what there is."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_cli import console, options

if TYPE_CHECKING:
    from ernie_cli.hub.download import Plan
    from ernie_cli.hub.lock import Report


class Source(str, enum.Enum):
    hf = "hf"
    modelscope = "modelscope"
    aistudio = "aistudio"


def download(
    model: Annotated[
        str | None, typer.Argument(help="A name of the catalogue, or org/name. None: list the catalogue.", show_default=False)
    ] = None,
    source: Annotated[Source, typer.Option(help="The hub to ask.")] = Source.hf,
    revision: Annotated[str, typer.Option(help="A branch, tag or commit; the newest if left out.", show_default=False)] = "",
    include: Annotated[list[str] | None, typer.Option(help="Only files like this, e.g. '*.json'. Repeatable.", show_default=False)] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files like this. Repeatable.", show_default=False)] = None,
    out: options.Out = None,
    dry_run: options.DryRun = False,
    device: options.DeviceName = "auto",
    force: options.Force = False,
) -> None:
    """Fetch a model, whole and verified, and lock what it is in ernie.json. Without a name: list the catalogue.

    The hub's hashes are compared, and what fails half-way is resumed by the same command. A second run finds the model
    up to date, also without a network.

    \b
    $ ernie download ernie-4.5-nano
    ernie-4.5-nano: 8 files, 3.4 MB, hf, apache-2.0, nothing to fetch
    \b
    $ ernie download ernie-4.5-0.3b --source modelscope -o m
    using PaddlePaddle/ERNIE-4.5-0.3B-PT: the layout that the most tools read; `ernie-4.5-0.3b-paddle` is the other one
    m: 12 files, 724.5 MB, hf, apache-2.0, 724.5 MB fetched
    \b
    $ ernie download ernie-4.5-21b-a3b --dry-run --device rtx4090
    (its files, their sizes, and whether they fit the disk and that device)
    \b
    Tokens:  HF_TOKEN (or `hf auth login`), MODELSCOPE_API_TOKEN, AISTUDIO_ACCESS_TOKEN
    Mirrors: HF_ENDPOINT, MODELSCOPE_ENDPOINT, AISTUDIO_ENDPOINT
    """
    from ernie_cli.hub import download as hub
    from ernie_cli.hub import render
    from ernie_cli.hub.wish import wish

    if model is None:
        console.result(None if console.settings.json else render.catalogue(), data={"models": render.catalogue_data()})
        return
    wanted = wish(model, out, source=source.value, revision=revision, include=include or (), exclude=exclude or ())
    if dry_run:
        _show_plan(hub.plan(wanted), device)
        return
    report = hub.fetch_wish(wanted, force=force)
    console.result(_sentence(report), data=report.data())


def _sentence(report: Report) -> str:
    rest = ", ".join(filter(None, (report.format or "unknown format", report.licence)))
    new = (
        "up to date"
        if report.up_to_date
        else f"{console.size(report.fetched_bytes)} fetched"
        if report.fetched_bytes
        else "nothing to fetch"
    )
    return f"{report.path}: {report.files} files, {console.size(report.bytes)}, {rest}, {new}"


def _show_plan(plan: Plan, device: str) -> None:
    from ernie_cli.hub import fit, render

    fits = (fit.disk(plan.files, plan.wanted.out), fit.memory(plan.files, device))
    console.result(None if console.settings.json else render.plan(plan, fits), data=render.plan_data(plan, fits))
    fit.check_disk(plan.files, plan.wanted.out)
