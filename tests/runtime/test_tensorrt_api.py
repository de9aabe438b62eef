"""What the runtime calls of TensorRT, held against the library as it is installed: names and numbers of arguments. Runs none of it."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_cli import runtime
from ernie_cli.engine import library
from ernie_cli.runtime.tensorrt_engine import DTYPES

FILES = ("tensorrt_engine.py", "tensorrt_graph.py")
#: The library's objects, by what the runtime calls them.
NATIVE, MODULE = ("native", "_native", "_runtime", "config"), "trt"
#: Asked for with getattr, since not every release has them.
OPTIONAL = ("get_aliased_input_tensor", "is_stream_capturable")


@pytest.fixture(scope="module")
def trt() -> Any:
    found = library.find("tensorrt-rtx", gpu=False) or library.find("tensorrt", gpu=False)
    if found is None:
        pytest.skip("neither TensorRT-RTX nor TensorRT is installed")
    return importlib.import_module(found.module)


def trees() -> Iterator[ast.Module]:
    for name in FILES:
        yield ast.parse((Path(runtime.__file__).parent / name).read_text(encoding="utf-8"))


def last(node: ast.expr) -> str:
    """`self._native` → "_native"."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def used(kinds: tuple[str, ...]) -> set[str]:
    return {node.attr for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute) and last(node.value) in kinds}


def calls() -> Iterator[tuple[str, int]]:
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and last(node.func.value) in NATIVE:
                yield node.func.attr, len(node.args)


def members(trt: Any) -> dict[str, Any]:
    classes = ("Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache")
    return {name: value for each in classes if hasattr(trt, each) for name, value in vars(getattr(trt, each)).items()}


def test_every_name_exists(trt: Any) -> None:
    wanted = used(NATIVE)
    assert {"execute_async_v3", "set_tensor_address", "set_device_memory", "deserialize_cuda_engine", "create_runtime_cache"} <= wanted
    known = members(trt)
    if not hasattr(trt, "IRuntimeCache"):
        known |= dict.fromkeys(used(("config",)) | {"create_runtime_config", "deserialize", "serialize"})
    assert not wanted - set(known)
    assert not [name for name in used((MODULE,)) - {"__name__"} if not hasattr(trt, name) and "Strategy" not in name]


def test_every_call_has_as_many_arguments_as_it_wants(trt: Any) -> None:
    known = members(trt)
    for name, given in calls():
        if name in known:
            assert given in arities(name, known[name].__doc__), f"{name}: {given} arguments\n{known[name].__doc__}"


def arities(name: str, said: str) -> set[int]:
    """The numbers of arguments that a binding's docstring allows, over all its overloads."""
    allowed: set[int] = set()
    for signature in re.findall(rf"{name}\(self: [\w.]+(.*)\) -> ", said):
        total = len(re.findall(r", \w+: ", signature))
        allowed |= set(range(total - signature.count(" = "), total + 1))
    return allowed


def test_what_some_releases_lack_is_asked_for(trt: Any) -> None:
    found = [node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Call) and last(node.func) == "getattr"]
    assert set(OPTIONAL) <= {node.args[1].value for node in found if isinstance(node.args[1], ast.Constant)}
    if hasattr(trt, "IRuntimeCache"):
        assert set(OPTIONAL) <= set(members(trt))


def test_types_have_names(trt: Any) -> None:
    """Those without are packed: no array holds them."""
    assert set(trt.DataType.__members__) - set(DTYPES) <= {"INT4", "FP4", "E8M0"} and set(DTYPES) <= set(trt.DataType.__members__)
