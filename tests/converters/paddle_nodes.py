"""ONNX's own node tests through our table on Paddle, many in one process. `python paddle_nodes.py [PREFIX …]` runs all and prints."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

#: float16, float32, float64, bool, the integers.
_TYPES = (1, 2, 3, 5, 6, 7, 9, 10, 11)
#: Pictures, texts and training are no part of inference on tensors.
_OTHERS = ("test_sce", "test_nllloss", "test_adam", "test_adagrad", "test_momentum", "test_image_decoder", "test_tfidf", "test_training")


def cases() -> list[str]:
    """The folders of the tests whose inputs and outputs are all tensors of numbers or booleans, default domain."""
    import onnx.backend.test

    data = Path(onnx.backend.test.__file__).parent / "data" / "node"
    return [str(folder) for folder in sorted(data.iterdir()) if not folder.name.startswith(_OTHERS) and _numeric(folder)]


def _numeric(folder: Path) -> bool:
    proto = onnx.load(str(folder / "model.onnx"))
    if any(entry.domain not in ("", "ai.onnx") for entry in proto.opset_import) or not proto.graph.input:
        return False
    types = [value.type for value in (*proto.graph.input, *proto.graph.output)]
    return all(kind.WhichOneof("value") == "tensor_type" and kind.tensor_type.elem_type in _TYPES for kind in types)


def run(folders: list[str], scratch: str) -> dict[str, str]:
    """Name → "passed", "refused: …" or "wrong: …". Inputs after the first are constants, as they are in models."""
    return {Path(folder).name: _one(Path(folder), Path(scratch)) for folder in folders}


def _one(folder: Path, scratch: Path) -> str:
    import paddle

    from ernie_cli.errors import ErnieError
    from ernie_cli.onnxgraph.load import load
    from ernie_cli.onnxgraph.lower import lower
    from ernie_cli.onnxgraph.write import save
    from ernie_cli.pdmodel.assemble import build
    from ernie_cli.pdmodel.ops import table

    data = folder / "test_data_set_0"
    wanted = [_read(data / f"output_{index}.pb") for index in range(len(list(data.glob("output_*"))))]
    first = _bake(folder, data, scratch / "baked.onnx")
    try:
        save(lower(load(scratch / "baked.onnx"), 21, known=set(table())), scratch, "source.onnx")
        with paddle.static.scope_guard(paddle.static.Scope()), paddle.utils.unique_name.guard():
            build(str(scratch / "source.onnx"), str(scratch / "made"))
            executor = paddle.static.Executor(paddle.CPUPlace())
            program, fed, fetched = paddle.static.load_inference_model(str(scratch / "made"), executor)
            found = executor.run(program, feed=dict.fromkeys(fed, first), fetch_list=fetched)
    except ErnieError as err:
        return f"refused: {err.message}"
    except Exception as err:  # noqa: BLE001  whatever it is, it is wrong
        return f"wrong: {type(err).__name__}: {err}"
    return _compare(found, wanted)


def _bake(folder: Path, data: Path, out: Path) -> np.ndarray:
    proto: Any = onnx.load(str(folder / "model.onnx"))
    given = list(proto.graph.input)
    for index, value in enumerate(given[1:], 1):
        tensor = TensorProto.FromString((data / f"input_{index}.pb").read_bytes())
        tensor.name = value.name
        proto.graph.initializer.append(tensor)
        proto.graph.input.remove(value)
    onnx.save(proto, str(out))
    return _read(data / "input_0.pb")


def _read(file: Path) -> np.ndarray:
    return numpy_helper.to_array(TensorProto.FromString(file.read_bytes()))


def _compare(found: list[np.ndarray], wanted: list[np.ndarray]) -> str:
    for got, want in zip(found, wanted, strict=False):
        if got.shape != want.shape or got.dtype != want.dtype:
            return f"wrong: {got.dtype} {got.shape} where {want.dtype} {want.shape} was expected"
        if not np.allclose(got, want, rtol=1e-3, atol=1e-5, equal_nan=True):
            return "wrong: other numbers"
    return "passed"


if __name__ == "__main__":
    chosen = [folder for folder in cases() if not sys.argv[1:] or Path(folder).name.startswith(tuple(sys.argv[1:]))]
    with tempfile.TemporaryDirectory() as where:
        results = run(chosen, where)
    for name, said in results.items():
        if said != "passed":
            print(name, said[:200])
    print(Counter(said.split(":")[0] for said in results.values()))
