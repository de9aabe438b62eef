"""Runs ONNX's own backend node tests through onnx → torchscript. `python -m tests.torchscript.backend_nodes [WORD …]` prints what fails.

No other engine computes anything here: the module is scripted torch, the expected outputs come with the onnx package.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ernie_cli.torchscript import module
from ernie_cli.torchscript.expand import expand
from ernie_cli.torchscript.types import array_of, tensor_of

#: The highest opset that our exporters emit; tests of later ones are counted apart.
OPSET = 24


@dataclass(frozen=True)
class Result:
    """One test. group: "tensor", "sequence" (or optional), "string", "later" (opset > 24) or "other domain". why: "" where it passed."""

    name: str
    operator: str
    group: str
    why: str


def cases() -> list[Any]:
    """Every node test of the installed onnx."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(collect_testcases(None))


def run_all(words: Sequence[str] = ()) -> Iterator[Result]:
    """Every test (whose name holds one of the words), run."""
    for case in cases():
        if not words or any(word in case.name for word in words):
            yield run(case)


def run(case: Any) -> Result:
    """One test: converted, compiled, run and compared as ONNX's runner compares."""
    group, operator = _group(case.model), _operator(case)
    try:
        why = _why_not(case)
    except Exception as err:  # noqa: BLE001 - whatever a rule or torch throws is the test's result
        lines = [line.strip() for line in str(err).splitlines() if line.strip()]
        why = f"{type(err).__name__}: {lines[0] if lines else ''}"
        if "following operation failed" in why:
            why = f"{type(err).__name__}: {lines[-1]}"
    return Result(case.name, operator, group, why)


def _why_not(case: Any) -> str:
    import onnx
    import onnx_ir as ir

    model = ir.from_proto(onnx.shape_inference.infer_shapes(case.model))
    expand(model)
    written = module.write(model)
    missing = [f"{use[0]}: {use[3] or 'no rule'}" for use in written.uses if use[2] is None]
    if missing:
        return "; ".join(missing)
    compiled = module.compile_written(written)
    half = [[value.type.tensor_type.elem_type == 16 for value in part] for part in (case.model.graph.input, case.model.graph.output)]
    for inputs, expected in case.data_sets:
        inputs, expected = _halves(inputs, half[0]), _halves(expected, half[1])
        made = compiled(*[_to_torch(value) for value in inputs])
        made = made if len(expected) > 1 else (made,)
        if len(made) != len(expected):
            return f"{len(made)} outputs, {len(expected)} expected"
        for got, want in zip(made, expected, strict=True):
            why = _differs(_to_numpy(got), want, case.rtol, case.atol)
            if why:
                return why
    return ""


def _halves(values: Sequence[Any], is_bfloat16: Sequence[bool]) -> list[Any]:
    """onnx 1.17 gives bfloat16 as the uint16 of the same bits."""
    pairs = zip(values, is_bfloat16, strict=False)
    return [value.view(ml_dtypes.bfloat16) if half and getattr(value, "dtype", None) == np.uint16 else value for value, half in pairs]


def _to_torch(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_torch(item) for item in value]
    return None if value is None else tensor_of(_array(value))


def _array(value: Any) -> np.ndarray:
    """Test data are arrays, or TensorProto where numpy has no such type."""
    import onnx
    import onnx_ir as ir

    return ir.from_proto(value).numpy().copy() if isinstance(value, onnx.TensorProto) else np.array(value)


def _to_numpy(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_to_numpy(item) for item in value]
    return None if value is None else array_of(value)


def _differs(got: Any, want: Any, rtol: float, atol: float) -> str:
    """Where an output is not the expected one, "" where it is."""
    if isinstance(want, list) or got is None or want is None:
        if type(got) is not type(want) or (got is not None and len(got) != len(want)):
            return f"{type(got).__name__} for {type(want).__name__}"
        return "; ".join(filter(None, (_differs(g, w, rtol, atol) for g, w in zip(got or [], want or [], strict=True))))
    want = _array(want)
    if got.shape != want.shape:
        return f"shape {list(got.shape)}, {list(want.shape)} expected"
    if got.dtype != want.dtype and not _held(got.dtype, want.dtype):
        return f"{got.dtype.name}, {want.dtype.name} expected"
    if got.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)
    if got.dtype.kind not in "biufc" or want.dtype.kind not in "biufc" or got.dtype.name.startswith(("bfloat", "float8")):
        got, want = got.astype(np.float32), want.astype(np.float32)
    try:
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
    except AssertionError as err:
        return " ".join(str(err).split())[:140]
    return ""


def _held(got: np.dtype[Any], want: np.dtype[Any]) -> bool:
    """Whether a type that torch lacks came back in the one that holds it."""
    from ernie_cli.torchscript.types import HELD

    return HELD.get(want.name) == got.name and want.name != got.name


def _operator(case: Any) -> str:
    """The operator under test; in the expanded form of a function, its name from the test's."""
    nodes = case.model.graph.node
    name: str = nodes[0].op_type if len(nodes) == 1 else case.name.removeprefix("test_")
    return name


def _group(model: Any) -> str:
    import onnx

    if any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        return "other domain"
    if max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0) > OPSET:
        return "later"
    kinds = {value.type.WhichOneof("value") for value in (*model.graph.input, *model.graph.output)}
    if kinds - {"tensor_type"}:
        return "sequence"
    types = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    return "string" if onnx.TensorProto.STRING in types else "tensor"


def count(results: Sequence[Result]) -> dict[str, tuple[int, int]]:
    """group → (passed, all)."""
    total = Counter(result.group for result in results)
    passed = Counter(result.group for result in results if not result.why)
    return {group: (passed[group], total[group]) for group in sorted(total)}


def main(words: Sequence[str]) -> None:
    """Print every failure, then the counts by group."""
    began, results = time.perf_counter(), []
    for result in run_all(words):
        results.append(result)
        if result.why:
            print(f"{result.group:8} {result.name}: {result.why[:200]}", flush=True)
    for group, (passed, total) in count(results).items():
        print(f"{group}: {passed} of {total}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main(sys.argv[1:])
