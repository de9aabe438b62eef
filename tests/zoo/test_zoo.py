"""A few small architectures over every edge, compared apart from the parity check. `tests/bench/bench_edges.py` does it for all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import originals
import pytest
from architectures import ZOO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
import bench_edges
import edge_parts

SMALL = ("lenet", "paddle_gru", "bert", "scripted_loop")


def test_the_zoo_is_large_enough_and_every_column_knows_both_libraries() -> None:
    assert len(ZOO) >= 25
    assert {one.library for one in ZOO.values()} == {"paddle", "torch"}
    assert len(bench_edges.COLUMNS) == 7
    for library, steps in (("paddle", bench_edges.PADDLE), ("torch", bench_edges.TORCH)):
        made = {"S", *(name for name, _, _ in steps)}
        assert all(set(chain[library]) <= made for chain in bench_edges.COLUMNS.values())


@pytest.mark.parametrize("name", ["lenet", "torch_gru"])
def test_originals_are_seeded_and_their_outputs_depend_on_the_input(name: str) -> None:
    one = ZOO[name]
    first, again = (originals.run(one, originals.build(one), one.feeds(5)) for _ in range(2))
    other = originals.run(one, originals.build(one), one.feeds(6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_every_edge(name: str, tmp_path: Path) -> None:
    library = ZOO[name].library
    made = edge_parts.build(name, tmp_path)
    steps = bench_edges.PADDLE if library == "paddle" else bench_edges.TORCH
    done: dict[str, dict[str, Any]] = {"S": {"exit": 0}}
    for target, source, to in steps:
        if done[source]["exit"]:
            done[target] = done[source]
            continue
        original = made["source"] if source == "S" else str(tmp_path / source)
        inputs = made["options"] if bench_edges.needs_inputs(library, source) else []
        done[target] = edge_parts.convert({"source": original, "to": to, "out": str(tmp_path / target), "inputs": inputs})
    refused = {target: each["message"] for target, each in done.items() if each["exit"]}
    assert not refused
    chains = [list(chain[library]) for chain in bench_edges.COLUMNS.values()]
    errors = edge_parts.compare(tmp_path, chains)
    assert all(each["error"] <= bench_edges.LIMIT and each["error_original"] <= bench_edges.LIMIT for each in errors.values()), errors


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("onnx → pdmodel has no mapping for 2 operators: LSTM × 2 (a, b); ai.x::Y × 1 (c): why", ["LSTM", "ai.x::Y"]),
        ("x2paddle cannot convert `NonMaxSuppression`", ["NonMaxSuppression"]),
        ("no route from onnx to nowhere", []),
    ],
)
def test_operators_are_read_from_the_refusal(message: str, named: list[str]) -> None:
    assert bench_edges.operators(message) == named
