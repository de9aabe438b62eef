"""The same operator in an older opset: axes back into attributes, new attributes left out. Each rule changes its node in place,
or returns values that stand for its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from .rewriter import Cannot, Rewriter

Down = Callable[[Rewriter], "Sequence[ir.Value] | None"]


def drop_inputs(b: Rewriter, keep: int) -> None:
    """Leave only the first `keep` inputs."""
    b.node.resize_inputs(min(keep, len(b.node.inputs)))


def reduction(b: Rewriter) -> Sequence[ir.Value] | None:
    """18 → 13: axes from the input into the attribute."""
    axes = b.input(1)
    listed = [] if axes is None else [int(axis) for axis in b.constant_of(axes, "axes").reshape(-1)]
    noop = b.attr("noop_with_empty_axes", 0)
    b.node.attributes.pop("noop_with_empty_axes", None)
    if not listed and noop:
        if b.node.op_type not in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
            raise Cannot("noop_with_empty_axes")
        return [b.op("Identity", b.need(0))]
    drop_inputs(b, 1)
    if listed:
        b.node.attributes["axes"] = ir.AttrInt64s("axes", listed)
    return None


def boolean_reduction(b: Rewriter) -> Sequence[ir.Value] | None:
    """20 → 18: booleans as numbers."""
    if b.need(0).dtype != ir.DataType.BOOL:
        return None
    kept = {name: b.attr(name) for name in b.node.attributes}
    x = b.op(b.node.op_type, b.cast(b.need(0), ir.DataType.INT32), *b.node.inputs[1:], **kept)
    return [b.op("Greater", x, b.const(0, np.int32))]  # of nothing the maximum is the smallest number: False


def split(b: Rewriter) -> None:
    """18 → 13: as many parts as there are outputs; unequal ones are spelled out."""
    parts = b.attr("num_outputs")
    b.node.attributes.pop("num_outputs", None)
    length = b.dim(b.need(0), b.attr("axis", 0))
    if parts is None or length is None or length % parts == 0:
        return
    size = -(-length // parts)
    sizes = b.ints(*[size] * (parts - 1), length - size * (parts - 1))
    b.node.resize_inputs(2)
    b.node.replace_input_with(1, sizes)


def pad_axes(b: Rewriter) -> None:
    """18 → 13: pads for all axes."""
    axes = b.input(3)
    if axes is None:
        drop_inputs(b, 3)
        return
    rank, listed = b.rank(b.need(0)), b.constant_of(axes, "axes").reshape(-1)
    given = b.constant_of(b.need(1), "pads")
    pads = np.zeros((2, rank), np.int64)
    pads[:, [int(axis) % rank for axis in listed]] = given.reshape(2, -1)
    b.node.replace_input_with(1, b.ints(*pads.reshape(-1).tolist()))
    drop_inputs(b, 3)


def pad_wrap(b: Rewriter) -> None:
    """19 → 18."""
    if b.attr("mode", "constant") == "wrap":
        raise Cannot("mode wrap came with opset 19")


def resize_axes(b: Rewriter) -> None:
    """18 → 13: scales or sizes of all axes."""
    if b.attr("antialias", 0) or b.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Cannot("antialias or a kept aspect ratio came with opset 18")
    axes = b.attr("axes")
    for name in ("antialias", "keep_aspect_ratio_policy", "axes"):
        b.node.attributes.pop(name, None)
    if axes is None:
        return
    x = b.need(0)
    rank = b.rank(x)
    listed = [axis % rank for axis in axes]
    scales, sizes = b.input(2), b.input(3)
    if b.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise Cannot("a region of interest for some axes only")
    if scales is not None and (scales.shape is None or scales.shape.numpy() != (0,)):
        full = np.ones(rank, np.float32)
        full[listed] = b.constant_of(scales, "scales")
        b.node.replace_input_with(2, b.const(full))
    elif sizes is not None:
        wanted = {axis: b.op("Slice", sizes, b.ints(i), b.ints(i + 1), b.ints(0), rank=1) for i, axis in enumerate(listed)}
        b.node.replace_input_with(3, b.op("Concat", *(wanted.get(axis) or b.length(x, axis) for axis in range(rank)), axis=0, rank=1))


def resize_mode(b: Rewriter) -> None:
    """19 → 18."""
    if b.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel_symmetric":
        raise Cannot("half_pixel_symmetric came with opset 19")


def grid_sample(b: Rewriter) -> None:
    """20 → 16: the modes' older names; only images."""
    if b.rank(b.need(0)) != 4:
        raise Cannot("other than images came with opset 20")
    older = {"linear": "bilinear", "cubic": "bicubic"}
    mode = b.attr("mode", "linear")
    b.node.attributes["mode"] = ir.AttrString("mode", older.get(mode, mode))


def roi_align(b: Rewriter) -> None:
    """16 → 10: what was the only way is no longer the default."""
    if b.attr("coordinate_transformation_mode", "half_pixel") != "output_half_pixel":
        raise Cannot("half_pixel came with opset 16")
    b.node.attributes.pop("coordinate_transformation_mode", None)


def shape_range(b: Rewriter) -> Sequence[ir.Value] | None:
    """15 → 13: a part of the shape is cut out of the whole one."""
    start, end = b.attr("start", 0), b.attr("end")
    for name in ("start", "end"):
        b.node.attributes.pop(name, None)
    if not start and end is None:
        return None
    whole = b.op("Shape", b.need(0), rank=1)
    last = np.iinfo(np.int64).max if end is None else end
    return [b.op("Slice", whole, b.ints(start), b.ints(last), b.ints(0), rank=1)]


def batch_normalization(b: Rewriter) -> None:
    """14 → 9: inference only."""
    if b.attr("training_mode", 0):
        raise Cannot("it is in training mode")
    b.node.attributes.pop("training_mode", None)


def scatter_reduction(b: Rewriter) -> None:
    """18 → 16."""
    if b.attr("reduction", "none") in ("min", "max"):
        raise Cannot(f"reduction {b.attr('reduction')} came with opset 18")


#: operator → opset that changed it → how to undo that. What is not listed changed the types it takes, or added attributes.
RULES: Mapping[str, Mapping[int, Down]] = {
    "BatchNormalization": {14: batch_normalization},
    "GridSample": {20: grid_sample},
    "Pad": {19: pad_wrap, 18: pad_axes},
    **{
        f"Reduce{kind}": {18: reduction, **({20: boolean_reduction} if kind in ("Max", "Min") else {})}
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
    "Resize": {19: resize_mode, 18: resize_axes},
    "RoiAlign": {16: roi_align},
    "ScatterElements": {18: scatter_reduction},
    "ScatterND": {18: scatter_reduction},
    "Shape": {15: shape_range},
    "Split": {18: split},
}
#: Attributes that newer opsets added → the value that says what older ones always did. Others of other values cannot be undone.
NEUTRAL: Mapping[str, object] = {
    "allowzero": 0, "block_size": 0, "ceil_mode": 0, "layout": 0, "left_window_size": -1, "right_window_size": -1, "output_dtype": 0,
    "precision": 0, "reduction": "none", "round_mode": "up", "saturate": 1, "stash_type": 1, "mode": "DCR",
}  # fmt: skip
