"""The attention that `ernie run` opens on a processor gives what the file's own gives, in every shape a decoder is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import small_decoder
from small_decoder import HEADS, KV_HEADS, LAYERS, write_checkpoint

from ernie_cli import route
from ernie_cli.errors import InputError
from ernie_cli.model import Model
from ernie_cli.quant.cache import cache_values, quantize_cache
from ernie_cli.runtime import onnxruntime, shared_heads


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("shared") / "hf")


def converted(checkpoint: Path, out: Path, **how: object) -> Model:
    return route.convert(checkpoint, to="onnx", out=out, options=route.Options(verify=False, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("all_logits", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_prompts_chunks_and_rows_at_places_of_their_own(
    checkpoint: Path, tmp_path: Path, dtype: str, all_logits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[int] = []
    join = shared_heads.join
    monkeypatch.setattr(shared_heads, "join", lambda *given: joined.append(join(*given)) or joined[-1])
    model = converted(checkpoint, tmp_path / "onnx", dtype=dtype, all_logits=all_logits)
    before = model.main_file().read_bytes()
    rng = np.random.default_rng(0)
    chunks = [rng.integers(3, 320, (2, count)) for count in (7, 1, 1, 20, 1)]
    seen = []
    for exact in (True, False):
        session = onnxruntime.open(model, "cpu", batch=2, context=128, threads=2, exact=exact)
        steps = [session.step(chunks[0])]
        session.truncate(1, 3)  # from here on the second row stands four tokens behind
        seen.append([*steps, *(session.step(chunk) for chunk in chunks[1:])])
        session.close()
    for got, want in zip(seen[1], seen[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=(1e-5 if dtype == "fp32" else 2e-2) * np.abs(want).max())
    assert model.main_file().read_bytes() == before and joined == [LAYERS]


def test_every_layer_is_joined_and_the_mask_repeated_once_for_all_but_the_last(checkpoint: Path, tmp_path: Path) -> None:
    graph = ir.load(converted(checkpoint, tmp_path / "onnx").main_file())
    nodes = len(list(graph.graph))
    assert shared_heads.join(graph, 2) == LAYERS
    assert [node.op_type for node in graph.graph].count("Tile") == 2  # the last block's is one token's
    assert len(list(graph.graph)) == nodes + 2 * LAYERS + 2
    assert rows(graph) == [[0, KV_HEADS, -1, 32]] * LAYERS
    assert shared_heads.join(graph, 2) == 0, "it is done once"


def rows(graph: ir.Model) -> list[list[int]]:
    """What the queries of all Attention nodes are reshaped to."""
    makers = [node.inputs[0].producer() for node in graph.graph if node.op_type == "Attention"]  # type: ignore[union-attr]
    lengths = [maker.inputs[1].const_value for maker in makers if maker is not None and maker.op_type == "Reshape"]  # type: ignore[union-attr]
    return [list(each.numpy()) for each in lengths if each is not None]


@pytest.mark.parametrize(("threads", "heads"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 8), (64, 8)])
def test_every_thread_keeps_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, heads: int) -> None:
    """8 query heads over 2 of keys become 2 or 4, or stay."""
    monkeypatch.setattr(small_decoder, "HEADS", 8)
    model = converted(small_decoder.write_checkpoint(tmp_path / "hf"), tmp_path / "onnx")
    graph = ir.load(model.main_file())
    assert shared_heads.join(graph, threads) == (LAYERS if heads < 8 else 0)
    assert [each[1] for each in rows(graph)] == ([heads] * LAYERS if heads < 8 else [])
    same_numbers(model, threads)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_narrow_caches_are_seen_through(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    model = converted(checkpoint, tmp_path / "onnx")
    graph = ir.load(model.main_file())
    quantize_cache(graph, kind, dict.fromkeys(cache_values(graph), 0.05))
    ir.save(graph, model.main_file())
    assert shared_heads.join(graph, 2) == LAYERS
    same_numbers(model)


@pytest.mark.parametrize("change", ["no names", "seen from outside"])
def test_graphs_that_others_wrote(checkpoint: Path, tmp_path: Path, change: str) -> None:
    model = converted(checkpoint, tmp_path / "onnx")
    graph = ir.load(model.main_file())
    mixed = [node.outputs[0] for node in graph.graph if node.op_type == "Attention"]
    for node in graph.graph:
        node.name = None if change == "no names" else node.name
    if change == "seen from outside":
        mixed[0].type, mixed[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None] * 4)
        graph.graph.outputs.append(mixed[0])
    ir.save(graph, model.main_file())
    if change == "seen from outside":
        assert shared_heads.join(graph, 2) == LAYERS - 1 and mixed[0].producer().inputs[0].producer().op_type == "Transpose"  # type: ignore[union-attr]
    else:
        same_numbers(model)


def same_numbers(model: Model, threads: int = 2) -> None:
    """A prompt and a token after it, of two rows."""
    ids, seen = np.random.default_rng(0).integers(3, 320, (2, 9)), []
    for exact in (True, False):
        session = onnxruntime.open(model, "cpu", batch=2, threads=threads, exact=exact)
        seen.append([session.step(ids[:, :8]), session.step(ids[:, 8:])])
        session.close()
    for want, got in zip(*seen, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_what_counts_rows_or_shares_nothing_stays(checkpoint: Path, tmp_path: Path) -> None:
    growing = ir.load(converted(checkpoint, tmp_path / "growing", kv_cache="growing").main_file())
    assert shared_heads.join(growing, 1) == 0
    assert HEADS > KV_HEADS
    for change in ("causal", "mask per head", "another order"):
        graph = ir.load(converted(checkpoint, tmp_path / change).main_file())
        for node in list(graph.graph):
            if node.op_type == "Attention" and change == "causal":
                node.attributes["is_causal"] = ir.AttrInt64("is_causal", 1)
            elif node.op_type == "LessOrEqual" and change == "mask per head":
                node.replace_input_with(1, ir.Value(name="rows"))
            elif node.op_type == "Transpose" and change == "another order":
                node.attributes["perm"] = ir.AttrInt64s("perm", [0, 1, 2, 3])
        assert shared_heads.join(graph, 2) == 0, change


@pytest.mark.parametrize("damage", ["cut", "garbled", "empty"])
def test_a_damaged_file_is_told_as_one(checkpoint: Path, tmp_path: Path, damage: str) -> None:
    """Whoever reads the graph before onnxruntime does leaves the complaint to it."""
    model = converted(checkpoint, tmp_path / "onnx")
    whole = model.main_file().read_bytes()
    at = whole.index(b"Attention")
    broken = {"cut": whole[: at + 2000], "garbled": whole[: at - 20] + b"\xff" * 40 + whole[at + 20 :] + b"Attention", "empty": b""}
    model.main_file().write_bytes(broken[damage])
    for exact in (True, False):
        with pytest.raises(InputError, match="onnxruntime cannot run it"):
            onnxruntime.open(model, "cpu", exact=exact)
