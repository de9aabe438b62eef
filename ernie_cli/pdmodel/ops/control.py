"""Control flow: If, and Loop without values stacked per iteration, as Paddle's cond and while_loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op


@op("If")
def if_(c: Any, node: Any, condition: Any) -> Any:
    branches = [node.attributes["then_branch"], node.attributes["else_branch"]]
    if c.known(condition):
        return _inside(c, branches[0 if bool(np.asarray(condition).ravel()[0]) else 1], {})
    flag = c.p.reshape(c.t(condition), [])
    made = c.p.static.nn.cond(flag, *[lambda branch=branch: [c.t(v) for v in _inside(c, branch, {}, deeper=True)] for branch in branches])
    return tuple(made) if isinstance(made, (list, tuple)) else (made,)


def _inside(c: Any, graph: Any, arguments: dict[str, Any], deeper: bool = False) -> tuple[Any, ...]:
    """The outputs of an inner graph, which sees all the values around it."""
    outer = dict(c.values)
    c._depth += deeper
    try:
        c.values.update(arguments)
        c.graph(graph)
        return tuple(c.p.assign(c.t(c.values[value.name])) if deeper else c.values[value.name] for value in graph.output)
    finally:
        c._depth -= deeper
        c.values = outer


@op("Loop")
def loop(c: Any, node: Any, most: Any, go: Any, *carried: Any) -> Any:
    body = node.attributes["body"]
    names = [value.name for value in body.input]
    if len(body.output) != 1 + len(carried):
        raise node.cannot("a value per iteration stacked into one")
    limit = c.scalar(c.t(most)) if most is not None else c.p.full([], (1 << 62), "int64")
    start = c.p.reshape(c.t(go), []) if go is not None else c.p.full([], True, "bool")
    state = [c.p.full([], 0, "int64"), c.p.assign(start), *[c.p.assign(c.t(value)) for value in carried]]

    def more(index: Any, flag: Any, *rest: Any) -> Any:
        return c.p.logical_and(index < limit, flag)

    def step(index: Any, flag: Any, *rest: Any) -> list[Any]:
        results = _inside(c, body, dict(zip(names, (index, flag, *rest), strict=True)), deeper=True)
        return [index + 1, c.p.reshape(c.t(results[0]), []), *[c.t(value) for value in results[1:]]]

    return tuple(c.p.static.nn.while_loop(more, step, state)[2:])
