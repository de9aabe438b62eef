"""Engine folders with real papers and a plan that nobody will deserialise: what is checked before that needs no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ernie_cli import device as devices
from ernie_cli.engine import papers
from ernie_cli.engine.builder import Built
from ernie_cli.engine.layers import EngineLayer, Facts, Fate
from ernie_cli.engine.library import Library
from ernie_cli.engine.log import Tensor
from ernie_cli.engine.options import Options
from ernie_cli.engine.plan import Plan
from ernie_cli.engine.predict import predict
from ernie_cli.engine.shapes import Profile, Shapes
from ernie_cli.model import Model, write_manifest

RTX, FULL = "1.7.1.116", "10.13.3.9"
#: What the papers of `write_engine` name, wherever the tests run.
SYSTEM = "linux-x86_64"


def write_graph(folder: Path) -> Model:
    """x [N, 16] fp16 → MatMul in fp16 → Relu → MatMul int8 × int8 → y [N, 4], as an ONNX folder with a tokenizer's files beside it."""
    rng = np.random.default_rng(0)
    half, int8 = np.float16, np.int8
    scale, zero = np.array(0.05, half), np.array(0, int8)
    arrays = {
        "w1": rng.normal(0, 0.1, (16, 32)).astype(half), "w2": rng.integers(-127, 128, (32, 4)).astype(int8),
        "scale": scale, "zero": zero, "scales": np.full(4, 0.01, half), "zeros": np.zeros(4, int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "dequantize"),
        helper.make_node("DequantizeLinear", ["w2", "scales", "zeros"], ["dw"], "weights", axis=1),
        helper.make_node("MatMul", ["d", "dw"], ["y"], "second"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", size]) for name, size in (("x", 16), ("y", 4))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10, producer_name="test")
    onnx.save(model, folder / "model.onnx")
    for name, text in {"tokenizer.json": "{}", "chat_template.jinja": "{{ messages }}", "config.json": '{"model_type": "tiny"}'}.items():
        (folder / name).write_text(text)
    (folder / "scales.json").write_text("{}")
    checks = [{"name": "parity", "passed": True, "edge": "hf_to_onnx"}]
    more = {"main": "model.onnx", "quantization": {"scheme": "int8"}}
    write_manifest(folder, format="onnx", architecture="tiny", precision="int8", checks=checks, **more)
    return Model.open(folder)


def write_engine(
    folder: Path,
    library: str = "tensorrt-rtx",
    version: str = "",
    capabilities: tuple[str, ...] = ("8.9",),
    plan: bytes = b"",
    **options: Any,
) -> Model:
    """`folder` as `ernie build` leaves it, made from `folder`-onnx."""
    source = write_graph(folder.with_name(f"{folder.name}-onnx"))
    folder.mkdir()
    (folder / "model.plan").write_bytes(plan or np.random.default_rng(1).bytes(100_000))
    device = devices.load("rtx4090")
    chosen = Library(library, "none", version or (RTX if library == "tensorrt-rtx" else FULL), False)
    shapes = Shapes({}, (Profile("default", {"x": ((1, 16), (4, 16), (8, 16))}),))
    foreseen = predict(source, shapes)
    planned = Plan(
        source, device, chosen, "a test", capabilities, Options(**options), "int8", shapes, foreseen, folder, "key", up_to_date=False
    )
    built = Built(folder / "model.plan", folder / "build.log", 0.01, 1.5, 300_000_000, {"cuda": "12.9"})
    layers = [
        EngineLayer("fused", "gemm", 0, ("first", "relu"), "fp16", "0x1"),
        EngineLayer("last", "gemm", 0, ("second",), "fp16", "", "int8"),
    ]
    fates = {name: Fate(((0,),), ("",)) for name in ("first", "relu")}
    fates |= {"second": Fate(((1,),), ("",)), "weights": Fate(((),), ("folded into a constant",))}
    ends = [Tensor("x", "input", "fp16", (-1, 16)), Tensor("y", "output", "fp16", (-1, 4))]
    facts = Facts(layers=layers, nodes=fates, activation_bytes=[4096], weight_bytes=1200, io=ends)
    papers.write(
        folder, source=source, graph=source, plan=planned, built=built, facts=facts, prediction=foreseen, checks=[], shapes=planned.shapes
    )
    edit(folder, lambda told: told | {"made_from": {"path": str(source.path)}, "made_by": {"command": "build"}})
    return edit(folder, lambda told: told["engine"]["target"].update(system=SYSTEM))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Model:
    """Rewrite ernie.json by hand: `change` gets its content and changes it, or returns another."""
    told = json.loads((folder / "ernie.json").read_text())
    changed = change(told)
    (folder / "ernie.json").write_text(json.dumps(told if changed is None else changed))
    return Model.open(folder)
