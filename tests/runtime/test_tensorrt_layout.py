"""How tokens for some rows of a decoder's engine become runs of it: the arithmetic, and the Session contract over the same graph.

The graph runs in ONNX Runtime on the CPU here, neighbouring rows at a time, as the engine runs on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import test_contract as contract
from small_decoder import HEAD_DIM, KV_HEADS, VOCABULARY, write_checkpoint

from ernie_cli import route
from ernie_cli.errors import UnsupportedError, UsageError
from ernie_cli.model import Model
from ernie_cli.runtime import Session, SessionInfo
from ernie_cli.runtime.onnxruntime import DecoderSession
from ernie_cli.runtime.tensorrt_io import Port, Range
from ernie_cli.runtime.tensorrt_layout import Layout, Phase, layout, parts, pieces, rows_of, step, written

BATCH, CONTEXT, HEADS = contract.BATCH, contract.CONTEXT, KV_HEADS

#: (most rows in a step of many tokens, most tokens in it, fewest): what engines may be built for.
PHASES = {"pieces of 3": (BATCH, 3, 1), "pieces of 16, one row": (1, 16, 1), "pieces of 4 to 8": (BATCH, 8, 4)}


def made(batch: int = BATCH, prompt: tuple[int, int, int] = (BATCH, 3, 1), slots: int = CONTEXT) -> Layout:
    rows, most, fewest = prompt
    names = tuple(f"cache.{layer}.{kind}" for layer in range(2) for kind in ("key", "value"))
    phases = Phase(0, rows, most, fewest), Phase(1, batch, 1)
    return Layout(names, "float32", HEADS, slots, HEAD_DIM, VOCABULARY, False, "float32", *phases)


# --- the arithmetic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "prompt", "expected"),
    [
        (1, (1, 8, 1), [(0, 1)]),
        (8, (1, 8, 1), [(0, 8)]),
        (9, (1, 8, 1), [(0, 8), (8, 9)]),
        (17, (1, 8, 1), [(0, 8), (8, 16), (16, 17)]),
        (18, (1, 8, 1), [(0, 8), (8, 16), (16, 18)]),
        (10, (1, 8, 4), [(0, 8), (8, 9), (9, 10)]),  # two tokens are too few for the profile of prompts
        (3, (1, 8, 4), [(0, 1), (1, 2), (2, 3)]),
        (12, (1, 8, 4), [(0, 8), (8, 12)]),
    ],
)
def test_prompts_go_in_pieces(tokens: int, prompt: tuple[int, int, int], expected: list[tuple[int, int]]) -> None:
    assert pieces(tokens, made(prompt=prompt)) == expected


@pytest.mark.parametrize(
    ("rows", "tokens", "ends", "expected"),
    [
        ([0, 1, 2, 3], 1, [5, 5, 5, 5], [(0, 4)]),
        ([0], 1, [5, 5, 5, 5], [(0, 1)]),  # one of four: alone
        ([0, 1], 1, [5, 5, 5, 5], [(0, 2)]),  # half of them, side by side
        ([0, 2], 1, [5, 5, 5, 5], [(0, 4)]),  # two runs would read the weights twice
        ([0, 1, 2], 1, [5, 5, 5, 5], [(0, 4)]),
        ([0, 2], 1, [5, CONTEXT, 5, 5], [(0, 1), (2, 1)]),  # row 1 is full: nothing may be written behind its end
        ([0, 2], 1, [5, CONTEXT - 1, 5, 5], [(0, 4)]),
        ([0, 1, 2, 3], 1, [CONTEXT - 1] * 4, [(0, 4)]),
        ([0, 2], 3, [5, 5, 5, 5], [(0, 1), (2, 1)]),  # prompts: computing for rows at rest would cost
        ([0, 1, 3], 3, [0, 0, 0, 0], [(0, 2), (3, 1)]),
    ],
)
def test_rows_that_run_together(rows: list[int], tokens: int, ends: list[int], expected: list[tuple[int, int]]) -> None:
    assert parts(rows, tokens, ends, made(batch=4, prompt=(4, 8, 1))) == expected


def test_a_profile_for_one_row_takes_rows_in_turn() -> None:
    assert parts([0, 1, 2], 5, [0, 0, 0], made(prompt=(1, 8, 1))) == [(0, 1), (1, 1), (2, 1)]


def test_a_session_of_fewer_rows_than_the_engine_takes() -> None:
    assert parts([0, 1], 1, [3, 9], made(batch=32)) == [(0, 2)]


def test_rows_at_rest_are_written_behind_their_end_alone() -> None:
    """Of what a step of rows 0 and 2 writes, nothing lies in the part of row 1 that counts."""
    seen = []

    def run(first: int, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        seen.append((first, ids.tolist(), positions.tolist()))
        return np.arange(len(ids) * VOCABULARY, dtype=np.float32).reshape(len(ids), VOCABULARY)

    ends = [4, 7, 9]
    logits = step(made(), ends, np.array([[11], [33]]), [0, 2], [4, 2], run)
    assert seen == [(0, [[11], [0], [33]], [4, 7, 2])] and ends == [5, 7, 3]
    assert logits[:, 0].tolist() == [0, 2 * VOCABULARY]


@pytest.mark.parametrize(("slots", "wanted", "fitting"), [(1024, 4, None), (1023, 1, None), (1023, 4, 1024), (33, 2, 34)])
def test_rows_begin_where_tensorrt_wants_them(slots: int, wanted: int, fitting: int | None) -> None:
    narrow = replace(made(batch=4, slots=slots), heads=1)  # 64 bytes per slot in 16 bits
    if fitting is None:
        assert rows_of(narrow, wanted, 2, 256) == wanted
        return
    with pytest.raises(UsageError) as raised:
        rows_of(replace(narrow, head_dim=64), wanted, 2, 256)
    assert f"--context {fitting}" in raised.value.hint


def test_more_rows_than_it_was_built_for() -> None:
    with pytest.raises(UsageError, match="2 conversations") as raised:
        rows_of(made(batch=2), 3, 4, 256)
    assert raised.value.hint == "--batch-size 2, or build it again with --batch 3"


# --- what an engine looks like ----------------------------------------------------------------------------------------


def ports(batch: int = 4, chunk: int = 16, layers: int = 2, dtype: str = "float16") -> list[Port]:
    """As `ernie build` makes them: profiles for prompts and for single tokens."""

    def ranged(*shape: int, sequence: bool = False) -> tuple[Range, ...]:
        ends = [((1, 1), (batch, n)) if sequence else ((1, *shape), (batch, *shape)) for n in (chunk, 1)]
        return tuple(Range(least, most, most) for least, most in ends)

    cache = (HEADS, CONTEXT, HEAD_DIM)
    names = [f"cache.{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]
    return [
        Port("input_ids", "int64", (-1, -1), ranges=ranged(sequence=True)),
        Port("positions", "int64", (-1,), ranges=ranged()),
        *(Port(name, dtype, (-1, *cache), ranges=ranged(*cache)) for name in names),
        Port("logits", "float32", (-1, VOCABULARY), is_input=False),
        *(Port(written(name), dtype, (-1, *cache), is_input=False) for name in names),
    ]


def test_the_engine_of_a_decoder() -> None:
    found = layout(ports(), "m")
    assert (found.prompt, found.token) == (Phase(0, 4, 16), Phase(1, 4, 1))
    assert (found.heads, found.slots, found.head_dim, found.vocabulary, len(found.caches)) == (HEADS, CONTEXT, HEAD_DIM, VOCABULARY, 4)
    assert (found.cache_dtype, found.all_logits, found.row_bytes(2)) == ("float16", False, 2 * HEADS * CONTEXT * HEAD_DIM)


def test_one_profile_does_for_both() -> None:
    single = [replace(port, ranges=port.ranges[:1]) for port in ports()]
    found = layout(single, "m")
    assert found.prompt == found.token == Phase(0, 4, 16)
    assert pieces(20, found) == [(0, 16), (16, 20)]


def changed(name: str, **changes: Any) -> list[Port]:
    """`ports()` with some of them otherwise: those whose names begin so."""
    return [replace(port, **changes) if port.name.startswith(name) else port for port in ports()]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([port for port in ports() if port.name != "logits"], "no `logits`"),
        ([port for port in ports() if port.name != "cache_out.1.key"], "no `cache_out.1.key`"),
        ([*ports(), Port("mask", "bool", (1,))], "`mask` is unknown"),
        (changed("positions", dtype="int32"), "no int64"),
        (changed("cache.1.key", dtype="float32"), "`cache.1.key` is of another"),
        (changed("cache", shape=(-1, HEADS, -1, HEAD_DIM)), "no fixed length"),
        ([Port("x", "float32", (1, 3, 224, 224)), Port("y", "float32", (1, 1000), is_input=False)], "no `input_ids`"),
        (changed("", ranges=(Range((2, 1), (2, 1), (4, 8)),)), "one token"),
    ],
)
def test_what_is_no_decoder_is_said(found: list[Port], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        layout(found, "m")


# --- the contract -----------------------------------------------------------------------------------------------------


class PartsOnTheCpu:
    """Rows as an engine's, each run in ONNX Runtime over the caches of its rows, written in place."""

    def __init__(self, model: Model, layout: Layout, batch: int) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(model.main_file()), providers=["CPUExecutionProvider"])
        self.ortvalue = onnxruntime.OrtValue.ortvalue_from_numpy
        self.made, self.ends = layout, [0] * batch
        self.caches = {name: np.zeros((batch, HEADS, CONTEXT, HEAD_DIM), np.float32) for name in layout.caches}

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        return step(self.made, self.ends, tokens, rows, lengths, self._run)

    def _run(self, first: int, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        assert ids.shape[1] <= self.made.prompt.tokens and (positions + ids.shape[1] <= CONTEXT).all()
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("positions", positions)
        for name, cache in self.caches.items():
            value = self.ortvalue(cache[first : first + len(ids)])
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(written(name), value)
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        logits: np.ndarray = binding.get_outputs()[-1].numpy()
        return logits

    def close(self) -> None:
        del self.session


globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_") and "every_backend" not in name})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("layout")
    source = write_checkpoint(folder / "hf")
    return route.convert(source, to="onnx", out=folder / "onnx", options=route.Options(kv_cache="static", verify=False))


@pytest.fixture(scope="module", params=[*PHASES.values()], ids=[*PHASES])
def opener(request: pytest.FixtureRequest, model: Model) -> contract.Open:
    def open(batch: int = BATCH) -> Session:
        info = SessionInfo("onnxruntime", "cpu", VOCABULARY, CONTEXT, batch)
        return DecoderSession(info, PartsOnTheCpu(model, made(batch, request.param), batch), model.main_file())

    return open


@pytest.fixture(scope="module")
def kept(opener: contract.Open) -> Iterator[Session]:
    opened = opener()
    yield opened
    opened.close()


@pytest.fixture
def session(kept: Session) -> Session:
    """What earlier tests left in the caches must not show."""
    for row in range(BATCH):
        kept.truncate(row, 0)
    return kept
