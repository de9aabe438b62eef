"""What every backend promises, checked on every backend found on disk."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ernie_cli import route
from ernie_cli.errors import MissingError, UsageError
from ernie_cli.model import Model
from ernie_cli.runtime import Session, onnxruntime_session
from ernie_cli.runtime.open import backends, formats

#: Which module a backend stands on, where it is not in every install, and what its models are made with.
NEEDS = {"onnxruntime": "onnxruntime", "onnxruntime_tensorrt": "onnxruntime", "torchscript": "torch", "paddle": "paddle"}
VARIANTS: list[tuple[str, str, dict[str, Any]]] = [
    ("fake", "cpu", {}),
    ("onnxruntime", "cpu", {"kv_cache": "static"}),
    ("onnxruntime", "cpu", {"kv_cache": "growing"}),
    ("torchscript", "cpu", {}),
    ("paddle", "cpu", {}),
]
ON_GPUS: list[tuple[str, str, dict[str, Any]]] = [
    ("onnxruntime", "cuda", {"kv_cache": "static"}),
    ("onnxruntime", "cuda", {"kv_cache": "growing"}),
    ("onnxruntime_tensorrt", "cuda", {"kv_cache": "static"}),
]
#: Its engines are built first: tests/runtime has a file for it.
ELSEWHERE = {"tensorrt"}
#: A process that loads Paddle is started, or engines are built.
SLOW_TO_OPEN = ("paddle", "onnxruntime_tensorrt")
BATCH, CONTEXT = 3, 40

Open = Callable[..., Session]


def test_every_backend_is_under_contract() -> None:
    assert {name for name, *_ in (*VARIANTS, *ON_GPUS)} == set(backends()) - ELSEWHERE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import Ernie4_5Config, Ernie4_5ForCausalLM

    torch.manual_seed(0)
    shape = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "max_position_embeddings": 256}
    config = Ernie4_5Config(**shape, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3)
    folder = tmp_path_factory.mktemp("contract") / "hf"
    Ernie4_5ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(
    scope="module",
    params=[*VARIANTS, *(pytest.param(variant, marks=pytest.mark.gpu) for variant in ON_GPUS)],
    ids=lambda variant: "-".join([variant[0], *variant[2].values(), variant[1]]),
)
def opener(request: pytest.FixtureRequest, checkpoint: Path) -> Open:
    name, device, options = request.param
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    if device == "cuda":
        try:
            onnxruntime_session.place(device, tensorrt=name.endswith("tensorrt"))
        except MissingError as err:
            pytest.skip(f"{err.message}: {err.hint}")
    backend: ModuleType = backends()[name]
    model = _converted(checkpoint, formats(backend)[0], options) if formats(backend) else Model(checkpoint, "any")
    return lambda **settings: backend.open(model, device, **{"batch": BATCH, "context": CONTEXT, **settings})


def _converted(checkpoint: Path, to: str, options: dict[str, Any]) -> Model:
    out = checkpoint.with_name("-".join([to, *options.values()]))
    return route.convert(checkpoint, to=to, out=out, options=route.Options(verify=False, **options))


@pytest.fixture(scope="module")
def kept(opener: Open) -> Iterator[Session]:
    """One session for all tests: each would take seconds to open."""
    opened = opener()
    yield opened
    opened.close()


@pytest.fixture
def session(request: pytest.FixtureRequest, opener: Open) -> Iterator[Session]:
    if request.node.callspec.params["opener"][0] in SLOW_TO_OPEN:
        opened = request.getfixturevalue("kept")
        yield opened
        for row in range(BATCH):
            opened.truncate(row, 0)
        return
    opened = opener()
    yield opened
    opened.close()


def tokens(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int64)


def same(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max()))


TEXT = [5, 9, 200, 7, 7, 31, 150, 2]


def test_info_and_shape(session: Session) -> None:
    info = session.info
    assert (info.vocab_size, info.context, info.batch) == (320, CONTEXT, BATCH)
    assert info.backend in backends() and info.device.split(":")[0] in ("cpu", "cuda")
    logits = session.step(tokens(TEXT), [1])
    assert (logits.shape, logits.dtype) == ((1, 320), np.float32)
    assert np.isfinite(logits).all() and np.ptp(logits) > 0
    assert [session.length(row) for row in range(BATCH)] == [0, 8, 0]


@pytest.mark.parametrize("cuts", [(8,), (1, 7), (7, 1), (3, 2, 3), (1,) * 8])
def test_chunks_equal_one_step(session: Session, cuts: tuple[int, ...]) -> None:
    whole = session.step(tokens(TEXT), [0])
    at = 0
    for cut in cuts:
        chunked = session.step(tokens(TEXT[at : at + cut]), [1])
        at += cut
    same(chunked, whole)


@pytest.mark.parametrize("keep", [0, 1, 5, 8])
def test_truncate_then_step_again(session: Session, keep: int) -> None:
    session.step(tokens(TEXT[:keep] or [3]), [0])
    session.truncate(0, keep)
    expected = session.step(tokens([11, 12]), [0])
    session.step(tokens(TEXT), [1])
    session.step(tokens([250, 251, 252]), [1])
    session.truncate(1, keep)
    assert session.length(1) == keep
    same(session.step(tokens([11, 12]), [1]), expected)


def test_logits_depend_on_the_whole_history(session: Session) -> None:
    seen = [session.step(tokens([first, 6, 7]), [0]).tobytes() for first in (1, 2, 3) if session.truncate(0, 0) is None]
    assert len(set(seen)) == 3


def test_rows_are_independent(session: Session) -> None:
    alone = [session.step(tokens(TEXT[: n + 2]), [0]) for n in range(3) if session.truncate(0, 0) is None]
    session.truncate(0, 0)
    for row in range(3):
        same(session.step(tokens(TEXT[: row + 2]), [row]), alone[row])
    together = session.step(tokens([4], [4]), [0, 2])  # rows of different length step together, row 1 rests
    assert [session.length(row) for row in range(3)] == [3, 3, 5]
    for row, logits in ((0, together[0]), (2, together[1])):
        session.truncate(1, 0)
        session.step(tokens(TEXT[: row + 2]), [1])
        same(session.step(tokens([4]), [1])[0], logits)


def test_all_rows_at_once(session: Session) -> None:
    together = session.step(tokens(TEXT, TEXT[::-1], TEXT))
    same(together[0], together[2])
    session.truncate(0, 0)
    same(session.step(tokens(TEXT[::-1]), [0])[0], together[1])


def test_the_caller_owns_the_logits(session: Session) -> None:
    first = session.step(tokens(TEXT), [0])
    kept = first.copy()
    second = session.step(tokens([1]), [0])
    same(first, kept)
    second[:] = np.nan
    session.truncate(0, 8)
    assert np.isfinite(session.step(tokens([1]), [0])).all()


def test_context(session: Session) -> None:
    session.step(tokens([7] * CONTEXT), [0])  # exactly full is fine
    for row, count in ((0, 1), (1, CONTEXT + 1)):
        with pytest.raises(UsageError, match=str(CONTEXT)):
            session.step(tokens([7] * count), [row])
    assert [session.length(row) for row in range(2)] == [CONTEXT, 0]  # a refused step changes nothing
    session.truncate(0, CONTEXT - 1)
    session.step(tokens([7]), [0])


@pytest.mark.parametrize("token", [-1, 320, 2**40])
def test_token_outside_the_vocabulary(session: Session, token: int) -> None:
    with pytest.raises(UsageError, match="vocabulary"):
        session.step(tokens([5, token]), [0])
    assert session.length(0) == 0


@pytest.mark.parametrize(("shape", "rows"), [((1, 0), [0]), ((2, 1), [0]), ((3,), None)])
def test_tokens_of_the_wrong_shape(session: Session, shape: tuple[int, ...], rows: list[int] | None) -> None:
    with pytest.raises(UsageError):
        session.step(np.zeros(shape, np.int64), rows)


@pytest.mark.parametrize("length", [-1, 9])
def test_truncate_to_what_was_never_there(session: Session, length: int) -> None:
    session.step(tokens(TEXT), [0])
    with pytest.raises(UsageError):
        session.truncate(0, length)


def test_sessions_do_not_share_rows(opener: Open, session: Session) -> None:
    session.step(tokens(TEXT), [0])
    other = opener(batch=1)
    assert (other.length(0), other.info.batch) == (0, 1)
    other.close()
    assert session.length(0) == 8
