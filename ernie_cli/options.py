"""The options that several commands share, spelled once."""

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path | None, typer.Option("-o", "--out", help="Where the result goes.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Do the work even if the result is up to date.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, do nothing.")]
DeviceName = Annotated[str, typer.Option("--device", help="A profile's name, or `auto` for this machine.")]
