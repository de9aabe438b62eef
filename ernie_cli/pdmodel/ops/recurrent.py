"""LSTM, GRU and plain recurrent layers, as Paddle's own recurrent operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op

#: Where Paddle has each gate, in ONNX's order: LSTM i o f c → i f c o, GRU z r h → r z h.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_DEFAULTS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


@op("LSTM", "GRU", "RNN")
def recurrent(
    c: Any, node: Any, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None, cell: Any = None, peep: Any = None
) -> Any:
    kind, hidden = node.op_type, node.get("hidden_size")
    mode = _mode(node, peep, lengths)
    x = c.t(x)
    x = c.p.transpose(x, [1, 0, 2]) if node.get("layout", 0) else x
    backward = node.get("direction", "forward") == "reverse"
    x = c.p.flip(x, [0]) if backward else x
    directions = 2 if node.get("direction", "forward") == "bidirectional" else 1
    weights = _weights(c, node, (w, r, b), directions, hidden)
    states = [_state(c, node, state, x, directions, hidden) for state in (h, cell)[: 2 if kind == "LSTM" else 1]]
    size = int(x.shape[2]) if x.shape[2] > 0 else int(weights[0].shape[1])
    seed = c.p.full([1], 0, "uint8")
    out, _, last = c.p._C_ops.rnn(x, states, weights, None, seed, 0.0, directions == 2, size, hidden, 1, mode, 0, True)
    out = c.p.flip(out, [0]) if backward else out
    steps, batch = c.dims(out)[:2]
    out = c.reshape(out, [steps, batch, directions, hidden])
    if node.get("layout", 0):
        return (c.p.transpose(out, [1, 0, 2, 3]), *[c.p.transpose(state, [1, 0, 2]) for state in last])
    return (c.p.transpose(out, [0, 2, 1, 3]), *last)


def _mode(node: Any, peep: Any, lengths: Any) -> str:
    kind = node.op_type
    given = [one.decode().lower() for one in node.get("activations") or []]
    directions = 2 if node.get("direction", "forward") == "bidirectional" else 1
    usual = not given or given == list(_DEFAULTS[kind]) * directions
    if kind == "RNN" and given and set(given) in ({"relu"}, {"tanh"}):
        usual = True
    if peep is not None or lengths is not None or not usual or node.get("clip") or node.get("input_forget", 0):
        raise node.cannot("peepholes, lengths per row, a clip, or other activations than the usual ones")
    if kind == "GRU" and not node.get("linear_before_reset", 0):
        raise node.cannot("linear_before_reset=0, which Paddle's GRU does not have")
    return kind if kind != "RNN" else ("RNN_RELU" if "relu" in given else "RNN_TANH")


def _weights(c: Any, node: Any, given: tuple[Any, Any, Any], directions: int, hidden: int) -> list[Any]:
    """Paddle's list: input and recurrent weights of each direction, then their biases."""
    order, gates = _GATES[node.op_type], len(_GATES[node.op_type])
    if not all(value is None or isinstance(value, np.ndarray) for value in given):
        raise node.cannot("weights that are computed while the model runs")
    w, r, b = given
    b = np.zeros((directions, 2 * gates * hidden), w.dtype) if b is None else b

    def sorted_gates(value: np.ndarray) -> Any:
        parts = np.split(value, gates, axis=0)
        return c.t(np.ascontiguousarray(np.concatenate([parts[index] for index in order], axis=0)))

    found = [sorted_gates(value[one]) for one in range(directions) for value in (w, r)]
    return found + [sorted_gates(half) for one in range(directions) for half in np.split(b[one], 2)]


def _state(c: Any, node: Any, state: Any, x: Any, directions: int, hidden: int) -> Any:
    if state is None:
        return c.p.full(c.lengths(np.array([directions, c.dims(x)[1], hidden], dtype=object)), 0.0, c.dtype(x))
    state = c.t(state)
    return c.p.transpose(state, [1, 0, 2]) if node.get("layout", 0) else state
