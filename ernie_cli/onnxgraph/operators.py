"""Which operators a model uses, and whether anybody knows them. What becomes of each is the edges' affair."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UnsupportedError
from ..need import need
from .proto import AGAIN

if TYPE_CHECKING:
    import onnx_ir as ir

#: The newest opset of the default domain that is known here even where the installed onnx is older.
NEWEST = 26
#: Operators newer than the oldest onnx that is supported (1.16, opset 21; 22 added none) → the opset that brought them.
LATER = {"Attention": 23, "RMSNormalization": 23, "RotaryEmbedding": 23, "Swish": 24, "TensorScatter": 24, "BitCast": 26, "CumProd": 26}
#: Domains of well-known extensions → how to call their operators.
_EXTENSIONS = {
    "com.microsoft": "a contrib operator of ONNX Runtime",
    "com.microsoft.experimental": "a contrib operator of ONNX Runtime",
    "com.microsoft.nchwc": "made by ONNX Runtime's optimiser for one kind of CPU: export without it",
    "ai.onnx.contrib": "of onnxruntime-extensions",
    "trt.plugins": "a TensorRT plugin",
    "org.pytorch.aten": "left over from PyTorch's exporter",
}


def operators(model: ir.Model) -> list[tuple[str, str, tuple[str, ...]]]:
    """(operator, domain, names of the nodes) of every operator in use, subgraphs and local functions included.

    The default domain is "". Calls of local functions are not listed: their nodes are. A node without a name goes by its output's.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for node in every_node(model):
        if node.op_identifier() not in model.functions:
            found.setdefault((node.op_type, _domain(node.domain)), []).append(name_of(node))
    return [(operator, domain, tuple(names)) for (operator, domain), names in sorted(found.items())]


def every_node(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the graph, of graphs inside nodes, and of local functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def name_of(node: ir.Node) -> str:
    """A node's name, or its first output's."""
    return node.name or next((value.name for value in node.outputs if value.name), "?")


def newest() -> int:
    """The newest opset of the default domain that can be read."""
    return max(NEWEST, int(need("onnx").defs.onnx_opset_version()))


def check(model: ir.Model, file: str, *, refuse: bool = True) -> None:
    """Raise UnsupportedError naming every operator nobody knows, InputError for nodes that an operator's definition forbids.

    refuse=False lets unknown operators pass; those that are known must still be used as defined.
    """
    opset = model.graph.opset_imports.get("", 0) or model.graph.opset_imports.get("ai.onnx", 0)
    if opset > newest():
        raise UnsupportedError(f"{file}: opset {opset} is newer than {newest()}, the newest known", "export it again with a lower opset")
    unknown: dict[tuple[str, str, str], list[str]] = {}
    for imports, node in _with_imports(model):
        if node.op_identifier() in model.functions:
            continue
        why = _why_unknown(node, imports)
        if why:
            unknown.setdefault((node.op_type, _domain(node.domain), why), []).append(name_of(node))
        else:
            _check_node(node, imports, file)
    if unknown and refuse:
        said = [
            f"{f'{domain}::' if domain else ''}{op} × {len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''}), {why}"
            for (op, domain, why), names in sorted(unknown.items())
        ]
        what = f"{file}: {len(said)} unknown operator{'s' if len(said) > 1 else ''}: {'; '.join(said)}"
        raise UnsupportedError(what, "export the model with standard ONNX operators only")


@lru_cache(maxsize=4096)
def schema(operator: str, domain: str, opset: int) -> Any:
    """onnx's definition of an operator as of an opset; None where it has none (unknown, or newer than the installed onnx)."""
    defs = need("onnx").defs
    try:
        return defs.get_schema(operator, opset, domain)
    except defs.SchemaError:
        return None


def _with_imports(model: ir.Model) -> Iterator[tuple[dict[str, int], ir.Node]]:
    """Every node with the opset of each domain there."""
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        imports = {_domain(domain): version for domain, version in owner.opset_imports.items()}
        for node in owner.all_nodes():
            yield imports, node


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _why_unknown(node: ir.Node, imports: dict[str, int]) -> str:
    domain = _domain(node.domain)
    if domain in _EXTENSIONS:
        return _EXTENSIONS[domain]
    if domain not in imports:
        return f"of the domain `{domain}`, of which the file says no version" if domain else "while the file names no opset"
    if domain == "" and LATER.get(node.op_type, 1 << 30) <= imports[domain]:
        return ""
    definition = schema(node.op_type, domain, imports[domain])
    if definition is None:
        known = any(schema(node.op_type, domain, version) for version in (newest(), NEWEST, 22))
        return f"not yet in opset {imports[domain]}" if known else ("not in the standard" if domain == "" else "of an unknown domain")
    return f"deprecated, gone in opset {imports[domain]}" if definition.deprecated else ""


def _check_node(node: ir.Node, imports: dict[str, int], file: str) -> None:
    definition = schema(node.op_type, _domain(node.domain), imports[_domain(node.domain)])
    if definition is None:
        return
    given, made = len(node.inputs), len(node.outputs)
    problem = ""
    if not definition.min_input <= given <= definition.max_input:
        problem = f"has {given} inputs"
    elif made > definition.max_output or made < definition.min_output:
        problem = f"has {made} outputs"
    for name, attribute in definition.attributes.items():
        has = node.attributes.get(name)
        if has is None and attribute.required:
            problem = f"has no attribute `{name}`"
        elif has is not None and int(has.type) != attribute.type.value:
            problem = f"has an attribute `{name}` of another type"
    problem = problem or _inner_problem(node, definition.since_version)
    if problem:
        raise InputError(f"{file}: node `{name_of(node)}` {problem}, which {node.op_type} does not allow", AGAIN)


def _inner_problem(node: ir.Node, version: int) -> str:
    """What is wrong with the counts of inputs and outputs of the graphs inside If, Loop and Scan (which first took lengths, too)."""
    given, made = len(node.inputs), len(node.outputs)
    wanted = {"If": (0, made), "Loop": (given, made + 1), "Scan": (given - (version == 8), made)}.get(node.op_type)
    for name, attribute in node.attributes.items():
        if wanted is None or node.domain not in ("", "ai.onnx") or name not in ("then_branch", "else_branch", "body"):
            continue
        graph = attribute.as_graph()
        if (len(graph.inputs), len(graph.outputs)) != wanted:
            return f"has a `{name}` of {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, not {wanted[0]} and {wanted[1]}"
    return ""
