"""`ernie devices`: what models can be made for, from profiles/, and which of them this machine is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ernie_cli import console

if TYPE_CHECKING:
    from ernie_cli.device import Device


def devices() -> None:
    """List the devices that --device takes, and say which one this machine is.

    Figures are their makers'; `?` stands behind those that no datasheet at hand confirms. Precisions are those of `ernie quantize`
    and `ernie build`.

    \b
    Example:
        $ ernie devices
        name     device                   capability  memory  bandwidth  precisions
        rtx4090  NVIDIA GeForce RTX 4090  8.9         24 GB   1008 GB/s  fp8, int4, int8 …
        …
    """
    from ernie_cli import device
    from ernie_cli.quant import targets
    from ernie_cli.tables import table

    known = [device.load(name) for name in device.names()]
    here, why = device.detect()
    rows = [(each.name, each.title, each.compute_capability or "–", *_figures(each), ", ".join(targets.able(each))) for each in known]
    header = ("name", "device", "capability", "memory", "bandwidth", "precisions")
    data = {
        "devices": [{**asdict(each), "precisions": targets.able(each)} for each in known],
        "here": {**asdict(here), "why": why},
    }
    console.result(None if console.settings.json else table(header, rows), data=data)
    console.info(f"this machine: {here.name} ({why})")


def _figures(device: Device) -> tuple[str, str]:
    """(memory, bandwidth), as far as they are known."""
    memory = f"{device.memory_gb:g} GB{', shared' * device.memory_shared}" if device.memory_gb else "–"
    sure, maybe = device.bandwidth_gb_per_s, device.unconfirmed.get("bandwidth_gb_per_s")
    return memory, f"{sure:g} GB/s" if sure else f"{maybe:g} GB/s?" if maybe else "–"
