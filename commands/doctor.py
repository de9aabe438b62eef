"""`ernie doctor`: what is here, what each command could do with it, and what would enable the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ernie_cli import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ernie_cli.doctor import Package, Report


def doctor() -> None:
    """Show what this machine can do, and what would enable the rest.

    Finds packages, GPU, driver, memory, processor and disk, says what each command could do with them, and gives the
    exact command that would enable more. Nothing is changed or sent anywhere; a missing part is no failure (exit code 0).

    \b
    Example:
        $ ernie doctor
        …
        What each command could do here
          command   status   how                                          to enable the rest
          download  ok       from Hugging Face, ModelScope and AI Studio
          run       missing  no backend is installed                      pip install 'ernie-cli[cpu]'
    """
    from ernie_cli.doctor import examine

    report = examine()
    for warning in report.warnings:
        console.warn(warning)
    console.result(None if console.settings.json else _text(report), data=report.data())


def _text(report: Report) -> RenderableType:
    from ernie_cli.tables import sections, table

    abilities = [(each.command, each.status, each.why, each.enable) for each in report.abilities]
    return sections(
        ("This machine", _machine(report)),
        ("Packages", table(("module", "version", "notes"), map(_package, report.packages))),
        ("What each command could do here", table(("command", "status", "how", "to enable the rest"), abilities)),
    )


def _machine(report: Report) -> RenderableType:
    from ernie_cli.tables import facts

    cpu, memory, driver = report.cpu, report.memory, report.driver
    in_container = " (the container's share)" if memory.limit else ""
    gpus = [
        f"{gpu.name}, compute capability {gpu.compute_capability or '?'}, {_free(gpu.memory_free_bytes, gpu.memory_bytes)}"
        for gpu in driver.gpus
    ]
    return facts(
        [
            ("ernie", report.ernie),
            ("python", report.python),
            ("system", report.platform),
            ("processor", f"{cpu.model}, {cpu.cores} core{'s' * (cpu.cores != 1)}, {cpu.architecture}"),
            ("features", " ".join(cpu.features)),
            ("memory", _free(memory.available, memory.total) + in_container),
            ("disk", ", ".join(f"{console.size(free)} free at {path}" for path, free in report.disks.items())),
            ("driver", f"NVIDIA {driver.version}, CUDA {driver.cuda}" if driver.version else ""),
            *(("gpu", text) for text in gpus or ["none"]),
            ("device", f"{report.device}: {report.device_reason}"),
        ]
    )


def _free(free: int | None, total: int | None) -> str:
    if total is None:
        return "memory shared with the processor, or not told"
    return f"{console.size(free or 0)} free of {console.size(total)}"


def _package(package: Package) -> tuple[str, str, str]:
    providers = f"providers: {', '.join(package.providers)}" if package.providers else ""
    install = f"pip install 'ernie-cli[{package.extra}]'" if package.extra and not package.version else ""
    named = package.distribution if package.version and package.distribution.replace("-", "_") != package.module else ""
    return package.module, package.version or "–", "; ".join(filter(None, (package.problem, named, providers, install)))
