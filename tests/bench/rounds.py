"""How every benchmark here measures: the contenders take turns, several rounds in one run, and medians are compared.

Machines are shared and noisy; a ratio of medians from turns taken in one run is what survives that.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Sample = dict[str, float]


def take_turns(contenders: Mapping[str, Callable[[], Sample]], rounds: int) -> dict[str, dict[str, float]]:
    """Run every contender once per round. Returns name → quantity → median; progress on stderr."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            samples[name].append(run())
            print(f"round {number + 1}/{rounds} {name}: {samples[name][-1]}", file=sys.stderr, flush=True)
    return {name: {key: statistics.median(s[key] for s in taken) for key in taken[0]} for name, taken in samples.items()}


def timed(command: list[str], **environment: str) -> Sample:
    """Run a command to its end: wall seconds, CPU seconds and peak memory of its process, in MB. Raises on failure."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment})
    assert process.stderr is not None
    said = process.stderr.read()  # to the end of the process, which wait4 then reaps with its own peak
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said.decode()[-2000:]}")
    process.returncode = 0
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss * unit / 1e6}


def printed(command: list[str]) -> Sample:
    """Run a command that prints one JSON object of figures."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: Sample = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def checkpoint(work: Path) -> Path:
    """The seeded 0.3B-shaped checkpoint in `work`, made by a process of its own: a child's peak memory starts from its parent's."""
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, str(Path(__file__).with_name("seeded.py")), str(work / "checkpoint")], check=True, stdout=sys.stderr)
    return work / "checkpoint"


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Medians as a Markdown table."""
    keys = list(next(iter(results.values())))
    lines = ["| | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{row[key]:.3g}" for key in keys) + " |" for name, row in results.items()]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    from ernie_cli import host

    cpu = host.cpu()
    return {"cpu": cpu.model, "features": list(cpu.features), "cores": cpu.cores, "python": platform.python_version()}
