"""Boxes: non-maximum suppression and regions."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op


@op("NonMaxSuppression")
def nms(c: Any, node: Any, boxes: Any, scores: Any, most: Any = None, overlap: Any = None, least: Any = None) -> Any:
    """[found, 3]: batch, class, box; best first within each class. most: boxes per class, 0 for none."""
    boxes, scores = c.t(boxes), c.t(scores)
    limit = c.numbers(most, node, "max_output_boxes_per_class")[0] if most is not None else 0
    threshold, floor = _number(c, node, overlap, 0.0), _number(c, node, least, -np.inf)
    corners = _corners(c, node, boxes)
    floor = max(floor, -3.0e38)
    out, index, _ = c.p._C_ops.multiclass_nms3(corners, scores, None, floor, -1, -1, threshold, True, 1.0, -1)
    count = c.dims(boxes)[1]
    index, label = c.p.cast(c.p.reshape(index, [-1]), "int64"), c.p.cast(c.p.slice(out, [1], [0], [1]), "int64")
    label = c.p.reshape(label, [-1])
    batch, box = c.p.floor_divide(index, c.scalar(count)), c.p.remainder(index, c.scalar(count))
    found = c.p.stack([batch, label, box], 1)
    kept = c.p.reshape(c.p.nonzero(label >= 0), [-1])  # where nothing was found Paddle gives one row of -1
    found = c.p.gather(found, kept, 0)
    return _first(c, found, limit, c.dims(scores)[1])


def _first(c: Any, found: Any, limit: int, classes: Any) -> Any:
    """The first `limit` rows of each batch and class, which lie together."""
    group = found[:, 0] * c.scalar(classes) + found[:, 1]
    same = c.p.equal(c.p.unsqueeze(group, [0]), c.p.unsqueeze(group, [1]))
    rank = c.p.sum(c.p.tril(c.p.cast(same, "int64"), -1), 1)
    return c.p.gather(found, c.p.reshape(c.p.nonzero(rank < limit), [-1]), 0)


def _number(c: Any, node: Any, value: Any, default: float) -> float:
    if value is None:
        return default
    if not c.known(value):
        raise node.cannot("its thresholds are computed while the model runs")
    return float(np.asarray(value).ravel()[0])


def _corners(c: Any, node: Any, boxes: Any) -> Any:
    """Two opposite corners, the lower one first. (Which axis is called x does not matter to an overlap.)"""
    first, second = boxes[:, :, 0:2], boxes[:, :, 2:4]
    if node.get("center_point_box", 0):
        return c.p.concat([first - second / 2.0, first + second / 2.0], 2)
    return c.p.concat([c.p.minimum(first, second), c.p.maximum(first, second)], 2)


@op("RoiAlign")
def roi_align(c: Any, node: Any, x: Any, regions: Any, batch: Any) -> Any:
    if node.get("mode", "avg") != "avg":
        raise node.cannot("mode max")
    x, regions = c.t(x), c.t(regions)
    numbers = c.p.cast(c.t(batch), "int64")
    rows = c.p.arange(c.scalar(c.dims(x)[0]), dtype="int64")
    counts = c.p.sum(c.p.cast(c.p.equal(c.p.unsqueeze(rows, [1]), c.p.unsqueeze(numbers, [0])), "int32"), 1)
    aligned = node.get("coordinate_transformation_mode", "half_pixel" if c.opset >= 16 else "output_half_pixel") == "half_pixel"
    size = (node.get("output_height", 1), node.get("output_width", 1))
    ratio = node.get("sampling_ratio", 0) or -1
    if c.dims(x)[0] != 1:
        order = c.p.argsort(numbers, stable=True)
        back = c.p.argsort(order)
        regions = c.p.gather(regions, order, 0)
    found = c.p.vision.ops.roi_align(x, regions, c.p.cast(counts, "int32"), size, node.get("spatial_scale", 1.0), ratio, aligned)
    return found if c.dims(x)[0] == 1 else c.p.gather(found, back, 0)
