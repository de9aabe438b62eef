"""The rows of decoders as a GPU keeps them, played where there is none: the same code over buffers in main memory.

What only a GPU can show is test_runtime_cuda.py's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ernie_cli import named, route
from ernie_cli.model import Model
from ernie_cli.runtime import SessionInfo
from ernie_cli.runtime.cache_types import ARRAYS, content, element, shared
from ernie_cli.runtime.growing import GrowingRows
from ernie_cli.runtime.onnxruntime_session import create_session
from ernie_cli.runtime.place import HOST, Place
from ernie_cli.runtime.static import SLOTS, StaticRows
from ernie_cli.runtime.step import CAPTURE_AT, PLAIN, Captures

ROOT = Path(__file__).resolve().parent.parent.parent
CONTEXT = 4 * SLOTS


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The embedded model with either cache."""
    folder, source = tmp_path_factory.mktemp("rows"), named.resolve(named.EMBEDDED)
    made = {cache: route.Options(kv_cache=cache, verify=False) for cache in ("static", "growing")}
    return {cache: route.convert(source, to="onnx", out=folder / cache, options=options) for cache, options in made.items()}


def static(decoders: dict[str, Model], place: Place, batch: int = 2) -> StaticRows:
    session, _ = create_session(decoders["static"].main_file(), HOST)
    return StaticRows(session, SessionInfo("onnxruntime", "cpu", 1536, CONTEXT, batch), place)


def test_a_growing_cache_that_stays_where_it_is_gives_the_same(decoders: dict[str, Model]) -> None:
    session, _ = create_session(decoders["growing"].main_file(), HOST)
    here, there = (GrowingRows(session, SessionInfo("onnxruntime", "cpu", 1536, 64, 1)) for _ in range(2))
    rng, length = np.random.default_rng(0), 0
    for count in (5, 1, 1, -4, 3, 1, -6, 1, 2):  # below zero: a truncate
        length += min(count, 0)
        if count > 0:
            ids = rng.integers(0, 1536, (1, count))
            np.testing.assert_array_equal(there._on_gpu(ids, 0, length), here._on_cpu(ids, 0, length))
            length += count


@pytest.mark.parametrize("kind", ARRAYS)
def test_caches_of_every_type_come_back(kind: str) -> None:
    """numpy knows neither bfloat16 nor 8-bit floats; onnxruntime is told of them by number."""
    array = np.arange(24).reshape(1, 2, 3, 4).astype(ARRAYS[kind])
    np.testing.assert_array_equal(content(shared(array, kind), kind), array)
    assert element(kind) in (16, 17) or element(kind) is ARRAYS[kind]


def test_steps_of_one_token_keep_their_addresses_until_the_cache_grows(decoders: dict[str, Model]) -> None:
    rows = static(decoders, HOST)
    prompt = np.random.default_rng(0).integers(0, 1536, (2, SLOTS - 2))
    rows.step(prompt, [0, 1], [0, 0])
    assert not rows.kept  # of a prompt nothing is kept
    rows.step(prompt[:, :1], [0, 1], [SLOTS - 2] * 2)
    first = rows.kept[0, 1]
    rows.step(prompt[:, 1:2], [0, 1], [SLOTS - 1] * 2)
    assert rows.kept[0, 1] is first and rows.slots == SLOTS
    rows.step(prompt[:, 2:3], [0, 1], [SLOTS] * 2)
    assert rows.kept[0, 1] is not first and rows.slots > SLOTS


def test_a_step_is_captured_at_its_third_time_and_anew_when_buffers_move(decoders: dict[str, Model]) -> None:
    """The CPU takes the numbers of graphs and captures nothing: who asks for what, and when, is seen all the same."""
    capturing, plain = static(decoders, Place(capture=True)), static(decoders, HOST)
    tokens = np.random.default_rng(0).integers(0, 1536, (2, SLOTS + 8))
    asked = []
    for at in range(SLOTS + 8):
        found = capturing.step(tokens[:, [at]], [0, 1], [at] * 2)
        np.testing.assert_array_equal(found, plain.step(tokens[:, [at]], [0, 1], [at] * 2))
        asked.append(int(capturing.kept[0, 1].options.get_run_config_entry("gpu_graph_id")))
    before, after = asked[:SLOTS], asked[SLOTS:]
    assert before == [PLAIN] * (CAPTURE_AT - 1) + [1] * (SLOTS - CAPTURE_AT + 1)
    assert after == [PLAIN] * (CAPTURE_AT - 1) + [2] * (len(after) - CAPTURE_AT + 1)
    assert capturing.captures.numbers == [2] and not plain.captures.numbers


def test_a_session_that_captures_nothing_needs_no_numbers(decoders: dict[str, Model]) -> None:
    session, _ = create_session(decoders["growing"].main_file(), HOST)
    assert Captures(session, False).options(1) is None
    assert Captures(session, True).options(PLAIN).get_run_config_entry("gpu_graph_id") == "-1"


def test_the_measurement_on_a_gpu_runs_to_its_end_without_one() -> None:
    """Every part with its reason, and nothing claimed."""
    command = [sys.executable, "tests/bench/bench_gpu.py", "--nano", "--precisions", "fp16,int4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=False)
    assert done.returncode == 0, done.stderr
    parts = [line for line in done.stdout.splitlines() if ": not run: " in line]
    assert len(parts) == 1 + 2 * 2 + 1 + 2 and all("no GPU here: " in line for line in parts)  # bandwidth, ours, fpA_intB, theirs
    assert "nothing is claimed" in done.stdout and "tok/s |" not in done.stdout
