"""LSTM, GRU and RNN: torch's kernels where they mean the same, a scripted loop for what they lack (lengths, peepholes, clip, other
activations, GRU's reset before the product)."""

import torch
from torch import Tensor

from ..node import Node, Unmapped
from . import Rule

#: Kind → its gates and default activations; ONNX orders gates i o f c (LSTM) and z r h (GRU).
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
#: Activation → default alpha and beta, None where it takes none.
PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(("relu", "tanh", "sigmoid", "softsign", "softplus"), (None, None)),
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}


def gates_as_torch(kind: str, w: Tensor) -> Tensor:
    """Rows of weights or biases in torch's order: i f c o (LSTM), r z h (GRU)."""
    if kind == "LSTM":
        i, o, f, c = w.chunk(4)
        return torch.cat([i, f, c, o])
    if kind == "GRU":
        z, r, h = w.chunk(3)
        return torch.cat([r, z, h])
    return w


def activate(x: Tensor, name: str, alpha: float, beta: float) -> Tensor:
    if name == "sigmoid":
        return torch.sigmoid(x)
    if name == "tanh":
        return torch.tanh(x)
    if name == "relu":
        return torch.relu(x)
    if name == "softsign":
        return x / (x.abs() + 1)
    if name == "softplus":
        return torch.log1p(torch.exp(-x.abs())) + torch.clamp_min(x, 0)
    if name == "affine":
        return x * alpha + beta
    if name == "leakyrelu":
        return torch.where(x < 0, x * alpha, x)
    if name == "thresholdedrelu":
        return torch.where(x >= alpha, x, torch.zeros_like(x))
    if name == "scaledtanh":
        return torch.tanh(x * beta) * alpha
    if name == "hardsigmoid":
        return torch.clamp(x * alpha + beta, 0.0, 1.0)
    return torch.where(x < 0, torch.expm1(x) * alpha, x)  # elu


def clipped(x: Tensor, clip: float) -> Tensor:
    return torch.clamp(x, -clip, clip) if clip > 0 else x


def one_direction(
    kind: str,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor,
    h: Tensor,
    c: Tensor,
    p: Tensor,
    lens: Tensor | None,
    backward: bool,
    acts: list[str],
    alphas: list[float],
    betas: list[float],
    clip: float,
    flag: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, B, I] through one direction: (y [T, B, H], last h, last c [B, H]). flag: LSTM's input_forget, GRU's
    linear_before_reset. Beyond its length a sequence gives 0 and keeps its state."""
    hidden = r.size(1)
    wb, rb = b.chunk(2)
    apart = kind == "GRU" and flag  # the product's own bias is reset with it
    inputs = torch.matmul(x, w.t()) + wb + (torch.zeros_like(rb) if kind == "GRU" else rb)
    ys: list[Tensor] = []
    for step in range(x.size(0)):
        t = x.size(0) - 1 - step if backward else step
        new_c = c
        if kind == "LSTM":
            i, o, f, g = (inputs[t] + torch.matmul(h, r.t())).chunk(4, 1)
            pi, po, pf = p.chunk(3)
            i = activate(clipped(i + pi * c, clip), acts[0], alphas[0], betas[0])
            f = 1 - i if flag else activate(clipped(f + pf * c, clip), acts[0], alphas[0], betas[0])
            new_c = f * c + i * activate(clipped(g, clip), acts[1], alphas[1], betas[1])
            o = activate(clipped(o + po * new_c, clip), acts[0], alphas[0], betas[0])
            new_h = o * activate(new_c, acts[2], alphas[2], betas[2])
        elif kind == "GRU":
            rzr, rh = r[: 2 * hidden], r[2 * hidden :]
            bzr, bh = rb[: 2 * hidden], rb[2 * hidden :]
            zr = inputs[t][:, : 2 * hidden] + torch.matmul(h, rzr.t()) + bzr
            z, reset = activate(clipped(zr, clip), acts[0], alphas[0], betas[0]).chunk(2, 1)
            seen = reset * (torch.matmul(h, rh.t()) + bh) if apart else torch.matmul(reset * h, rh.t()) + bh
            new = activate(clipped(inputs[t][:, 2 * hidden :] + seen, clip), acts[1], alphas[1], betas[1])
            new_h = (1 - z) * new + z * h
        else:
            new_h = activate(clipped(inputs[t] + torch.matmul(h, r.t()), clip), acts[0], alphas[0], betas[0])
        if lens is not None:
            alive = (lens > t).unsqueeze(1)
            ys.append(torch.where(alive, new_h, torch.zeros_like(new_h)))
            new_h, new_c = torch.where(alive, new_h, h), torch.where(alive, new_c, c)
        else:
            ys.append(new_h)
        h, c = new_h, new_c
    if backward:
        ys = ys[::-1]
    y = torch.stack(ys) if len(ys) > 0 else torch.zeros([0, x.size(1), hidden], dtype=x.dtype, device=x.device)
    return y, h, c


def weights_of(kind: str, w: Tensor, r: Tensor, b: Tensor | None, d: int) -> list[Tensor]:
    """One direction's weights as torch's kernels take them."""
    params = [gates_as_torch(kind, w[d]), gates_as_torch(kind, r[d])]
    if b is not None:
        wb, rb = b[d].chunk(2)
        params = params + [gates_as_torch(kind, wb), gates_as_torch(kind, rb)]  # noqa: RUF005 - TorchScript knows no [*a, b]
    return params


def kernel(kind: str, x: Tensor, params: list[Tensor], biases: bool, h: Tensor, c: Tensor, both: bool) -> tuple[Tensor, Tensor, Tensor]:
    if kind == "LSTM":
        y, h, c = torch.lstm(x, [h, c], params, biases, 1, 0.0, False, both, False)
    elif kind == "GRU":
        y, h = torch.gru(x, h, params, biases, 1, 0.0, False, both, False)
    else:
        y, h = torch.rnn_tanh(x, h, params, biases, 1, 0.0, False, both, False)
    return y, h, c


def by_kernel(
    kind: str, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h: Tensor, c: Tensor, backward: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """All directions by torch's kernels: y [T, B, D * H], h, c [D, B, H]."""
    params: list[Tensor] = []
    for d in range(w.size(0)):
        params += [gates_as_torch(kind, w[d]), gates_as_torch(kind, r[d])]
        if b is not None:
            wb, rb = b[d].chunk(2)
            params += [gates_as_torch(kind, wb), gates_as_torch(kind, rb)]
    both = w.size(0) == 2
    if backward:
        x = x.flip(0)
    if kind == "LSTM":
        y, h, c = torch.lstm(x, [h, c], params, b is not None, 1, 0.0, False, both, False)
    elif kind == "GRU":
        y, h = torch.gru(x, h, params, b is not None, 1, 0.0, False, both, False)
    else:
        y, h = torch.rnn_tanh(x, h, params, b is not None, 1, 0.0, False, both, False)
    return y.flip(0) if backward else y, h, c


def one_way(
    kind: str, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h0: Tensor | None, c0: Tensor | None, backward: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The plain case without branches or loops, so that it can become ONNX again. As `recurrent` gives it."""
    zeros = torch.zeros([1, x.size(1), r.size(2)], dtype=x.dtype, device=x.device)
    h, c = zeros if h0 is None else h0.contiguous(), zeros if c0 is None else c0.contiguous()
    y, h, c = kernel(kind, x.flip(0) if backward else x, weights_of(kind, w, r, b, 0), b is not None, h, c, False)
    return (y.flip(0) if backward else y).unsqueeze(1), h, c


def two_ways(
    kind: str, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h0: Tensor | None, c0: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    zeros = torch.zeros([2, x.size(1), r.size(2)], dtype=x.dtype, device=x.device)
    h, c = zeros if h0 is None else h0.contiguous(), zeros if c0 is None else c0.contiguous()
    params = weights_of(kind, w, r, b, 0) + weights_of(kind, w, r, b, 1)
    y, h, c = kernel(kind, x, params, b is not None, h, c, True)
    return y.reshape([y.size(0), y.size(1), 2, -1]).transpose(1, 2), h, c


def recurrent(
    kind: str,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lens: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
    p: Tensor | None,
    backward: bool,
    acts: list[str],
    alphas: list[float],
    betas: list[float],
    clip: float,
    flag: bool,
    batch_first: bool,
    kernel: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """ONNX's (Y [T, D, B, H], Y_h, Y_c [D, B, H]); batch_first (layout 1) has the batch in front of each. kernel: nothing but
    lengths keeps torch's kernel from it, and lengths only where they are not all T."""
    if batch_first:
        x = x.transpose(0, 1)
    directions, hidden, n = w.size(0), r.size(2), len(acts) // w.size(0)
    zeros = torch.zeros([directions, x.size(1), hidden], dtype=x.dtype, device=x.device)
    h = zeros if h0 is None else (h0.transpose(0, 1) if batch_first else h0)
    c = zeros if c0 is None else (c0.transpose(0, 1) if batch_first else c0)
    if lens is not None and bool((lens == x.size(0)).all()):
        lens = None
    if kernel and lens is None and x.numel() > 0:
        y, h, c = by_kernel(kind, x, w, r, b, h.contiguous(), c.contiguous(), backward)
        y = y.view([y.size(0), y.size(1), directions, hidden]).transpose(1, 2)
    else:
        bias = torch.zeros([directions, 2 * w.size(1)], dtype=x.dtype, device=x.device) if b is None else b
        peep = torch.zeros([directions, 3 * hidden], dtype=x.dtype, device=x.device) if p is None else p
        ys: list[Tensor] = []
        hs: list[Tensor] = []
        cs: list[Tensor] = []
        for d in range(directions):
            some = slice_of(acts, d, n)
            yd, hd, cd = one_direction(
                kind, x, w[d], r[d], bias[d], h[d], c[d], peep[d], lens, backward or d == 1,
                some, alphas[d * n : d * n + n], betas[d * n : d * n + n], clip, flag,
            )  # fmt: skip
            ys.append(yd)
            hs.append(hd)
            cs.append(cd)
        y, h, c = torch.stack(ys, 1), torch.stack(hs), torch.stack(cs)
    if batch_first:
        return y.permute(2, 0, 1, 3), h.transpose(0, 1), c.transpose(0, 1)
    return y, h, c


def slice_of(names: list[str], d: int, n: int) -> list[str]:
    return names[d * n : d * n + n]


def activations_of(node: Node, directions: int) -> tuple[list[str], list[float], list[float]]:
    """(names, alphas, betas) of every direction. Values are given only for activations that take them, in order."""
    names = [name.lower() for name in node.attr("activations") or DEFAULTS[node.op] * directions]
    if unknown := set(names) - set(PARAMETERS):
        raise Unmapped(f"activation {unknown.pop()}")
    alphas, betas = list(node.attr("activation_alpha", [])), list(node.attr("activation_beta", []))

    def taken(given: list[float], default: float | None) -> float:
        return 0.0 if default is None else float(given.pop(0)) if given else default

    return names, [taken(alphas, PARAMETERS[n][0]) for n in names], [taken(betas, PARAMETERS[n][1]) for n in names]


def _rule(node: Node) -> str:
    direction = node.attr("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    names, alphas, betas = activations_of(node, directions)
    flag = bool(node.attr("input_forget", 0) if node.op == "LSTM" else node.attr("linear_before_reset", 0))
    clip = float(node.attr("clip") or 0.0)
    plain = names == [name.lower() for name in DEFAULTS[node.op] * directions] and not clip and not node.has(7)
    kernel = plain and flag == (node.op == "GRU")
    states = [node.x(5), node.x(6) if node.op == "LSTM" else "None", node.x(7) if node.op == "LSTM" else "None"]
    if kernel and not node.has(4) and not node.attr("layout", 0) and 0 not in (node.shape(0) or ()):
        plain_args = (repr(node.op), *(node.x(i) for i in range(4)), *states[:2])
        text = node.call(two_ways, *plain_args) if directions == 2 else node.call(one_way, *plain_args, direction == "reverse")
        return f"{text}[0]" if node.n_outputs == 1 else text if node.n_outputs == 3 else f"{text}[:{node.n_outputs}]"
    text = node.call(
        recurrent, repr(node.op), *(node.x(i) for i in range(5)), *states, direction == "reverse", names, alphas, betas, clip, flag,
        bool(node.attr("layout", 0)), kernel,
    )  # fmt: skip
    if node.n_outputs == 1:
        return f"{text}[0]"
    return text if node.n_outputs == 3 else f"{text}[:{node.n_outputs}]"


RULES: dict[str, Rule] = dict.fromkeys(("LSTM", "GRU", "RNN"), _rule)
