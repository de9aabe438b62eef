"""`ernie inspect`: what a model on disk is, where it came from and how it was checked."""

from __future__ import annotations

from typing import Annotated

import typer

from ernie_cli import console
from ernie_cli.errors import InputError, UsageError


def inspect(
    path: Annotated[str, typer.Argument(help="A model folder, one file of a known format, or `ernie-4.5-nano`.", show_default=False)],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Of an engine: list its layers and the nodes in each, instead of the rest.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compute the sha256 of every file that ernie.json names.")] = False,
) -> None:
    """Show what a model is, where it came from and how it was checked.

    Format, architecture, parameters, bytes by dtype, KV cache, inputs and outputs, operators, provenance, checks; of an
    engine its GPU, library, profiles and memory. Reads headers and manifests only, needs no runtime and no GPU, and runs
    nothing the model brings along. Where the files are not what the model says they are, everything found is still
    shown, and the exit code is 3.

    \b
    Example:
        $ ernie inspect out/ernie-4.5-0.3b
        out/ernie-4.5-0.3b: hf, ernie4_5, bf16
          parameters  360,748,032
          weights     bf16 721.5 MB
          KV cache    18,432 bytes per token
          …
    """
    from ernie_cli import named
    from ernie_cli.inspect import look

    found = look(named.resolve(path), verify=verify)
    if layers and not found.get("engine"):
        raise UsageError(f"{path}: no engine with papers, so no list of layers", f"leave --layers out: ernie inspect {path}")
    if console.settings.json:
        console.result(data=found if tensors else {name: value for name, value in found.items() if name != "tensors"})
    elif layers:
        from ernie_cli.inspect import engine_text

        console.result(engine_text.layers(found))
    else:
        from ernie_cli.inspect.render import render

        console.result(render(found, tensors=tensors))
    if found["problems"]:
        again = found.get("again") or "`ernie download` or `ernie convert` with --force"
        raise InputError(f"{path}: {'; '.join(found['problems'][:3])}", f"fetch or make it again: {again}")
