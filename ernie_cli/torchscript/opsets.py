"""Which ONNX opset torch's exporter writes, and which operators of a module it has a mapping for."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

from ..coverage import OpUse
from ..errors import UsageError
from ..need import need
from . import missing

#: Lowest opset that torch's exporter writes all it can in: below, many operators are missing.
LOWEST = 9
#: One round decides what the one before made constant: a branch in a branch takes two.
_ROUNDS = 3
#: Parts of TorchScript itself that the exporter cannot express; it writes, folds or drops every other prim:: operator.
_NO_PRIMS = {"PythonOp", "CallMethod", "CallFunction", "CreateObject", "SetAttr", "fork", "rpc_async", "rpc_sync", "Enter", "Exit"}


def opset(asked: int | None) -> tuple[int, str]:
    """(opset, why): the one asked for, else the highest that torch's exporter writes and this onnx knows.

    Raises UsageError for one that torch's exporter does not write.
    """
    constants = importlib.import_module("torch.onnx._constants")
    most = int(getattr(constants, "ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET", 0) or constants.ONNX_MAX_OPSET)
    known = int(need("onnx").defs.onnx_opset_version())
    if asked is None:
        return min(most, known), "the highest that torch's exporter writes" if most <= known else "the highest that this onnx knows"
    if not LOWEST <= asked <= most:
        raise UsageError(f"torch's exporter writes the opsets {LOWEST} to {most}, not {asked}", f"--opset {min(max(asked, LOWEST), most)}")
    return asked, "asked for"


def uses(module: Any, number: int) -> list[OpUse]:
    """Every operator of a module's forward, submodules, loops and branches included, and how torch.onnx maps it."""
    table = registry()
    nodes: dict[str, list[str]] = {}
    computing: set[str] = set()
    graph = _graph(module)  # nodes live as long as it does
    for node in _nodes(graph):
        kind = node.kind()
        if kind.startswith("prim::") and kind[6:] not in _NO_PRIMS:
            continue
        nodes.setdefault(kind, []).append(_name(node))
        if any("Tensor" in str(value.type()) for value in node.outputs()):
            computing.add(kind)
    return [_use(table, kind, tuple(names), number, kind in computing) for kind, names in sorted(nodes.items())]


def _use(registry: Any, kind: str, names: tuple[str, ...], number: int, computes: bool) -> OpUse:
    if kind.startswith("onnx::"):
        return OpUse(kind, names, kind)
    plain = kind[:-1] if kind.endswith("_") else kind  # as torch's exporter looks them up, `aten::__not__` too
    group = registry.get_function_group(plain)
    found = group.get(number) if group is not None else None
    if found is not None and not kind.startswith("prim::"):
        return OpUse(kind, names, f"torch.onnx {plain} at opset {number}")
    if plain in missing.OPERATORS and number >= missing.LOWEST:
        return OpUse(kind, names, f"ours for {plain} at opset {number}")
    if not computes and kind[6:] not in _NO_PRIMS:
        return OpUse(kind, names, "decided while exporting: it makes no tensor")
    lowest = group.get_min_supported() if group is not None else None
    return OpUse(kind, names, "", f"it needs opset {lowest}" if lowest and lowest > number else "torch.onnx has no symbolic for it")


def registry() -> Any:
    """torch's table of mappings, filled. It moved within torch.onnx in 2.9."""
    for place in ("torch.onnx._internal.torchscript_exporter", "torch.onnx._internal"):
        try:
            found = importlib.import_module(f"{place}.registration").registry
        except ImportError:
            continue
        utils = importlib.import_module(f"{place}.utils" if "exporter" in place else "torch.onnx.utils")
        utils._trigger_symbolic_function_registration() if hasattr(utils, "_trigger_symbolic_function_registration") else None
        return found
    raise UsageError("this torch has no exporter of TorchScript", "pip install -U 'ernie-cli[torch]'")


def _graph(module: Any) -> Any:
    """The graph as the exporter sees it before it maps anything; the module itself stays as it is."""
    torch = need("torch")
    copied = torch._C._freeze_module(module._c, preserveParameters=True)
    graph = copied._get_method("forward").graph
    _fold(graph)
    return graph


def _fold(graph: Any) -> None:
    """Inline every call and drop the branches that are never taken, as the exporter will: what stands in them is not needed."""
    passes = need("torch")._C
    passes._jit_pass_onnx_function_substitution(graph)  # before inlining: some of torch's functions are exported as one operator
    passes._jit_pass_inline(graph)
    for _ in range(_ROUNDS):
        passes._jit_pass_peephole(graph, True)
        passes._jit_pass_constant_propagation(graph)
        passes._jit_pass_dce_allow_deleting_nodes_with_side_effects(graph)


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _name(node: Any) -> str:
    """`%name`, and the line of the source it was written in, where the file tells."""
    value = next((f"%{output.debugName()}" for output in node.outputs()), node.kind())
    try:
        source = node.sourceRange()  # unpickled only now
    except (RuntimeError, UnicodeDecodeError):  # damaged: the record of where the source stood, which nothing else needs
        source = ""
    found = re.search(r"([^/\\\"\s]+\.py)(?:\", line |:)(\d+)", source)
    return f"{value} at {found[1]}:{found[2]}" if found else value
