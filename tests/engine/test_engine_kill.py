"""Ctrl-C and kill -9 in the middle of a build: what stands under the result's name is an engine and whole, the old one or the new one,
and no process goes on building."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from test_engine_builder import mlp, workers

from ernie_cli import app
from ernie_cli.engine import admit
from ernie_cli.model import Model

#: Of each kind of end, in builds that were at work when it came.
STRIKES = 10
#: Processes come from one that has loaded what a build loads: most of their life is the build.
_LOADED = ["ernie_cli.app", "ernie_cli.commands.build", "ernie_cli.engine.build", "onnx_ir", "onnx.shape_inference", "rich.console"]


def command(graph: Path, out: Path, level: int) -> list[str]:
    return ["build", str(graph), "--device", "rtx4090", "--opt-level", str(level), "-o", str(out), "-q"]


def run(argv: list[str]) -> None:
    """In a process and a group of its own, as a shell starts it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    sys.exit(app.main(argv))


def whole(out: Path) -> str:
    """The key of the engine in `out`, read as whoever opens it does."""
    model = Model.open(out)
    told = admit.stamp(model)
    admit.check_digest(model, told)
    return str(model.manifest["key"])


def ended(process: multiprocessing.Process, begun: Callable[[], bool], wait_s: float, how: signal.Signals) -> bool:
    """Send `how` to its group `wait_s` after it began. False where it was done by then."""
    while not begun() and process.is_alive():
        time.sleep(0.002)
    process.join(wait_s)
    if not process.is_alive():
        return False
    with suppress(ProcessLookupError):  # it ended between the look and the signal
        (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    process.join(60)
    assert process.exitcode is not None, "it goes on"
    return process.exitcode != 0


def wait_for(nothing: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while nothing() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not nothing()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_no_half_plan_is_ever_taken_for_whole(how, tmp_path):
    graph, old, out = mlp(tmp_path / "m.onnx", rows=4, width=256), tmp_path / "old", tmp_path / "out"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)

    def start(to: Path, level: int) -> multiprocessing.Process:
        process = context.Process(target=run, args=(command(graph, to, level),))
        process.start()
        return process

    first = start(old, 0)
    first.join(120)
    assert first.exitcode == 0
    draw, span_s, landed, tries, keys = random.Random(0), 0.0, 0, 0, {whole(old)}
    partial = out.with_name("out.partial")
    while landed < STRIKES:
        tries += 1
        assert tries < 100, f"only {landed} strikes landed"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(old, out)
        before = time.monotonic()
        process = start(out, 1)
        if ended(process, partial.exists, draw.uniform(0, span_s or 60), how):
            landed += 1
            assert process.exitcode == (130 if how == signal.SIGINT else -signal.SIGKILL)
        else:
            assert process.exitcode == 0
            span_s = 0.9 * (span_s or time.monotonic() - before)
        assert how == signal.SIGKILL or not partial.exists()
        keys.add(whole(out))
        wait_for(lambda: workers(str(tmp_path)))
    last = start(out, 1)
    last.join(120)
    assert last.exitcode == 0 and whole(out) != whole(old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "old", "out"]
    assert len(keys | {whole(out)}) == 2
