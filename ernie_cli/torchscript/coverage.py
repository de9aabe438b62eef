"""Which operators of an ONNX graph have a rule, and what each becomes. Refusing is ernie_cli/coverage.py's."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from ..coverage import OpUse
from .emit import Written


def uses(written: Written, expanded: Iterable[str] = ()) -> list[OpUse]:
    """Every operator with its nodes. One that is mapped in some of its uses only is listed twice."""
    nodes: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for operator, name, text, why in written.uses:
        how = "" if text is None else becomes(written, text)
        nodes[operator, how if text is None else "mapped", why].append(name)
        if how:
            nodes[operator, "how", ""].append(how)
    found = []
    for (operator, state, why), names in sorted(nodes.items()):
        if state != "how":
            ways = list(dict.fromkeys(nodes.get((operator, "how", ""), [])))
            found.append(OpUse(operator, tuple(names), ", ".join(ways[:4]) if state == "mapped" else "", why))
    return [*found, *(OpUse(operator, (), "expanded") for operator in sorted(expanded))]


def becomes(written: Written, text: str) -> str:
    """The outermost torch function of an expression, or the helper of ours that is scripted along."""
    called = re.match(r"\(*(op_\w+|torch\.[\w.]+(?=\())", text)
    if called and called[1] in written.functions:
        function = written.functions[called[1]]
        return f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__}"
    if called:
        return called[1].replace("torch.ops.aten.", "torch.")
    method = re.match(r"[\w.]+?\.(reshape|permute|expand|repeat|to|t|view)\(", text)
    return f"torch.Tensor.{method[1]}" if method else "a TorchScript expression"
