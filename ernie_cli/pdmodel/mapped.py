"""Says which operators of a program paddle2onnx maps. Its list is asked of itself; only the spelling is ours."""

from __future__ import annotations

from collections import defaultdict

from ..coverage import OpUse
from .program import Program

#: PIR's name of an operator → the name paddle2onnx registers it under, where they differ (its pir_parser.cc).
_ALIASES = {
    "add": "elementwise_add",
    "add_n": "sum",
    "all": "reduce_all",
    "any": "reduce_any",
    "arange": "range",
    "argmax": "arg_max",
    "argmin": "arg_min",
    "batch_norm_": "batch_norm",
    "divide": "elementwise_div",
    "elementwise_pow": "elementwise_pow",
    "expand": "expand_v2",
    "flatten": "flatten_contiguous_range",
    "floor_divide": "elementwise_floordiv",
    "grid_sample": "grid_sampler",
    "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_swish",
    "matmul": "matmul_v2",
    "max": "reduce_max",
    "maximum": "elementwise_max",
    "mean": "reduce_mean",
    "min": "reduce_min",
    "minimum": "elementwise_min",
    "multiply": "elementwise_mul",
    "nonzero": "where_index",
    "numel": "size",
    "prod": "reduce_prod",
    "remainder": "elementwise_mod",
    "subtract": "elementwise_sub",
    "sum": "reduce_sum",
    "topk": "top_k_v2",
    "unsqueeze": "unsqueeze2",
}
#: Control flow is written by the exporter itself.
_CONTROL = {"pd_op.if": "If", "pd_op.while": "Loop", "cf.yield": "a block's result", "builtin.constant": "Constant"}


def uses(program: Program, registered: list[str]) -> list[OpUse]:
    """Every operator of `program` (a PIR one) with its nodes and how it is mapped, in the order of first use."""
    nodes: dict[str, list[str]] = defaultdict(list)
    for op in program.walk():
        nodes[op.operator].append(op.name)
    return [_use(operator, tuple(names), set(registered)) for operator, names in nodes.items()]


def _use(operator: str, nodes: tuple[str, ...], registered: set[str]) -> OpUse:
    if operator in _CONTROL:
        return OpUse(operator, nodes, _CONTROL[operator])
    dialect, _, name = operator.partition(".")
    known = {"builtin": f"builtin_{name}"}.get(dialect, _ALIASES.get(name, name))
    found = next((one for one in (known, known.removesuffix("_")) if one in registered), "")
    return OpUse(operator, nodes, f"paddle2onnx {found}" if found else "", "" if found else "paddle2onnx has no mapper for it")
