"""If, Loop and Scan become statements: decided and repeated at run time, whatever the inputs are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from graphs import parsed, same


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def test_if_takes_either_branch(tmp_path: Path) -> None:
    text = """agraph (float[N] x) => (float[N] y) {
        zero = Constant<value = float {0.0}>()
        total = ReduceSum<keepdims = 0>(x)
        positive = Greater(total, zero)
        y = If(positive)<
            then_branch = yes () => (float[N] a) { a = Add(x, total) },
            else_branch = no () => (float[N] b) { b = Neg(x) }>
    }"""
    module = same(text, tmp_path, {"x": np.ones(3, np.float32)}, {"x": -np.ones(5, np.float32)})
    assert "if " in module.code


def test_branches_nest_and_see_outer_values(tmp_path: Path) -> None:
    text = """agraph (float[N] x, bool p, bool q) => (float[N] y) {
        twice = Add(x, x)
        y = If(p)<
            then_branch = yes () => (float[N] a) {
                inner = Mul(twice, x)
                a = If(q)<
                    then_branch = yy () => (float[N] c) { c = Add(inner, twice) },
                    else_branch = yn () => (float[N] d) { d = Identity(x) }>
            },
            else_branch = no () => (float[N] b) { b = Identity(twice) }>
    }"""
    flags = [np.array(value) for value in (True, False)]
    same(text, tmp_path, *({"x": floats(4), "p": p, "q": q} for p in flags for q in flags))


def test_loop_runs_as_often_as_its_input_says(tmp_path: Path) -> None:
    """Carried values, one scanned output, the outer `step` seen from inside; no trip at all is fine, too."""
    text = """agraph (int64 n, float[2] x, float[2] step) => (float[2] last, float[M, 2] all) {
        go = Constant<value = bool {1}>()
        last, all = Loop(n, go, x)<
            body = b (int64 i, bool c, float[2] v) => (bool c_out, float[2] v_out, float[2] row) {
                c_out = Identity(c)
                f = Cast<to = 1>(i)
                part = Mul(step, f)
                v_out = Add(v, part)
                row = Identity(v)
            }>
    }"""
    feeds = [{"n": np.array(n), "x": floats(2), "step": np.array([1, 2], np.float32)} for n in (1, 3, 8, 0)]
    assert "while " in same(text, tmp_path, *feeds).code


def test_loop_stops_at_its_condition(tmp_path: Path) -> None:
    text = """agraph (float x) => (float y, int64 steps) {
        empty = Constant<value = bool {1}>()
        zero = Constant<value = int64 {0}>()
        y, steps = Loop(no_limit, empty, x, zero)<
            body = b (int64 i, bool c, float v, int64 k) => (bool c_out, float v_out, int64 k_out) {
                limit = Constant<value = float {100.0}>()
                one = Constant<value = int64 {1}>()
                v_out = Add(v, v)
                k_out = Add(k, one)
                c_out = Less(v_out, limit)
            }>
    }"""
    model = parsed(text)
    next(node for node in model.graph.node if node.op_type == "Loop").input[0] = ""  # onnx 1.17 cannot parse an absent first input
    same(model, tmp_path, {"x": np.array(3, np.float32)}, {"x": np.array(60, np.float32)})


def test_a_body_may_swap_what_it_carries(tmp_path: Path) -> None:
    text = """agraph (int64 n, float[2] a, float[2] b) => (float[2] c, float[2] d) {
        go = Constant<value = bool {1}>()
        c, d = Loop(n, go, a, b)<
            body = s (int64 i, bool g, float[2] x, float[2] y) => (bool h, float[2] u, float[2] v) {
                h = Identity(g)
                u = Identity(y)
                v = Add(x, y)
            }>
    }"""
    same(text, tmp_path, *({"n": np.array(n), "a": floats(2), "b": floats(2) + 1} for n in (1, 4)))


def test_scan_walks_axes_in_both_directions(tmp_path: Path) -> None:
    text = """agraph (float[2] h, float[2, T] x, float[T, 2] z) => (float[2] last, float[2, T] out) {
        last, out = Scan<num_scan_inputs = 2, scan_input_axes = [1, 0], scan_input_directions = [0, 1],
                         scan_output_axes = [1], scan_output_directions = [1],
            body = b (float[2] s, float[2] p, float[2] q) => (float[2] s_out, float[2] row) {
                both = Add(p, q)
                s_out = Add(s, both)
                row = Mul(s_out, q)
            }>(h, x, z)
    }"""
    same(text, tmp_path, *({"h": floats(2), "x": floats(2, t), "z": floats(t, 2)} for t in (1, 5)))


def test_shapes_inside_a_loop_are_those_of_the_turn(tmp_path: Path) -> None:
    """The carried value grows: its length must be asked anew each time."""
    text = """agraph (int64 n, float[K] x) => (float[J] y) {
        go = Constant<value = bool {1}>()
        y = Loop(n, go, x)<
            body = b (int64 i, bool c, float[L] v) => (bool c_out, float[M] v_out) {
                c_out = Identity(c)
                size = Shape(v)
                ones = ConstantOfShape<value = float[1] {1.0}>(size)
                v_out = Concat<axis = 0>(v, ones)
            }>
    }"""
    same(text, tmp_path, *({"n": np.array(n), "x": floats(3)} for n in (1, 3)))


def test_lists_in_and_out_of_a_loop(tmp_path: Path) -> None:
    text = """agraph (int64 n, float[2] x) => (float[J] y) {
        empty = SequenceEmpty()
        go = Constant<value = bool {1}>()
        parts = Loop(n, go, empty)<
            body = b (int64 i, bool c, seq(float[2]) v) => (bool c_out, seq(float[2]) v_out) {
                c_out = Identity(c)
                f = Cast<to = 1>(i)
                part = Mul(x, f)
                v_out = SequenceInsert(v, part)
            }>
        y = ConcatFromSequence<axis = 0>(parts)
    }"""
    same(text, tmp_path, *({"n": np.array(n), "x": floats(2)} for n in (1, 4)))
