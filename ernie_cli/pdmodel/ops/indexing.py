"""Elements picked and placed by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op


def _from_zero(c: Any, index: Any, length: Any) -> Any:
    """Indices with negative ones counted from the end."""
    if isinstance(index, np.ndarray) and c.known(index):
        numbers = index.astype(np.int64)
        if (numbers >= 0).all():
            return c.t(numbers)
        if isinstance(length, int):
            return c.t(np.where(numbers < 0, numbers + length, numbers))
    index = c.t(index)
    index = index if c.dtype(index) == "int64" else c.p.cast(index, "int64")
    return c.p.where(c.p.less_than(index, c.p.zeros_like(index)), index + c.scalar(length), index)


@op("Gather")
def gather(c: Any, node: Any, x: Any, index: Any) -> Any:
    axis = node.get("axis", 0)
    if isinstance(x, np.ndarray) and x.dtype == object and c.known(index):
        return np.take(x, np.asarray(index, dtype=np.int64), axis) if np.ndim(index) else _element(x, int(index))
    rank = x.ndim if isinstance(x, np.ndarray) else len(x.shape)
    axis %= rank
    x = c.t(x)
    dims = c.dims(x)
    at = _from_zero(c, index, dims[axis])
    places = c.dims(at)
    if len(places) == 1:
        return c.p.gather(x, at, axis)
    found = c.p.gather(x, c.p.reshape(at, [-1]), axis)
    return c.reshape(found, [*dims[:axis], *places, *dims[axis + 1 :]])


def _element(x: np.ndarray, index: int) -> np.ndarray:
    found = np.empty(x.shape[1:], dtype=object)
    found[...] = x[index]
    return found


@op("GatherElements")
def gather_elements(c: Any, node: Any, x: Any, index: Any) -> Any:
    x = c.t(x)
    axis = node.get("axis", 0) % len(x.shape)
    return c.p.take_along_axis(x, _from_zero(c, index, c.dims(x)[axis]), axis, broadcast=False)


@op("GatherND")
def gather_nd(c: Any, node: Any, x: Any, index: Any) -> Any:
    x, index = c.t(x), c.t(index)
    batch = node.get("batch_dims", 0)
    index = _every_batch(c, index, batch) if batch else index
    return c.p.gather_nd(x, _nd(c, x, index))


def _every_batch(c: Any, index: Any, batch: int) -> Any:
    """Indices with the batch's own indices before them."""
    dims = c.dims(index)
    parts = []
    for axis in range(batch):
        places = c.p.arange(c.scalar(dims[axis]), dtype="int64")
        shape = [1] * len(dims)
        shape[axis] = -1
        target = dims.copy()
        target[-1] = 1
        parts.append(c.p.expand(c.p.reshape(places, shape), c.lengths(target)))
    return c.p.concat([*parts, index], -1)


def _nd(c: Any, x: Any, index: Any) -> Any:
    """Index tuples with negative ones counted from the end."""
    depth = int(index.shape[-1])
    lengths = c.t(c.dims(x)[:depth])
    index = index if c.dtype(index) == "int64" else c.p.cast(index, "int64")
    return c.p.where(c.p.less_than(index, c.p.zeros_like(index)), index + lengths, index)


@op("ScatterND")
def scatter_nd(c: Any, node: Any, x: Any, index: Any, updates: Any) -> Any:
    x, updates = c.t(x), c.t(updates)
    how = node.get("reduction", "none")
    if how not in ("none", "add"):
        raise node.cannot(f"reduction {how}")
    places = _nd(c, x, c.t(index))
    if how == "add":
        return c.p.scatter_nd_add(x, places, updates)
    parts = [c.p.squeeze(part, [-1]) for part in c.p.split(places, int(places.shape[-1]), -1)] if places.shape[-1] != 1 else None
    return c.p.index_put(x, tuple(parts or [c.p.squeeze(places, [-1])]), updates)


@op("ScatterElements", "Scatter")
def scatter_elements(c: Any, node: Any, x: Any, index: Any, updates: Any) -> Any:
    x, updates = c.t(x), c.t(updates)
    axis = node.get("axis", 0) % len(x.shape)
    how = {"none": "assign", "add": "add", "mul": "mul", "max": "amax", "min": "amin"}[node.get("reduction", "none")]
    at = _from_zero(c, index, c.dims(x)[axis])
    return c.p.put_along_axis(x, at, updates, axis, how, broadcast=False)


@op("OneHot")
def one_hot(c: Any, node: Any, index: Any, depth: Any, values: Any) -> Any:
    index, values = c.t(index), c.t(values)
    rank, axis = len(index.shape), node.get("axis", -1)
    axis %= rank + 1
    count = c.numbers(depth, node, "depth")[0]
    at = c.p.cast(index, "int64")
    at = c.p.where(c.p.less_than(at, c.p.zeros_like(at)), at + count, at)
    shape = [1] * (rank + 1)
    shape[axis] = count
    kinds = c.p.reshape(c.p.arange(count, dtype="int64"), shape)
    hit = c.p.equal(c.p.unsqueeze(at, [axis]), kinds)
    off, on = (c.p.reshape(part, []) for part in c.p.split(values, 2, 0))
    return c.p.where(hit, on, off)


@op("NonZero")
def nonzero(c: Any, node: Any, x: Any) -> Any:
    return c.p.transpose(c.p.nonzero(c.t(x)), [1, 0])


@op("Compress")
def compress(c: Any, node: Any, x: Any, condition: Any) -> Any:
    x = c.t(x)
    axis = node.get("axis")
    x, axis = (c.p.reshape(x, [-1]), 0) if axis is None else (x, axis)
    at = c.p.reshape(c.p.nonzero(c.t(condition)), [-1])
    return c.p.index_select(x, at, axis)


@op("ReverseSequence")
def reverse_sequence(c: Any, node: Any, x: Any, lengths: Any) -> Any:
    x, lengths = c.t(x), c.p.cast(c.t(lengths), "int64")
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    places = c.p.arange(c.scalar(c.dims(x)[time]), dtype="int64")
    grid, ends = (c.p.unsqueeze(places, [1]), c.p.unsqueeze(lengths, [0]))
    source = c.p.where(grid < ends, ends - 1 - grid, grid + c.p.zeros_like(ends))  # [time, batch]
    source = source if time == 0 else c.p.transpose(source, [1, 0])
    shape = list(c.dims(source)) + [1] * (len(x.shape) - 2)
    source = c.p.expand(c.reshape(source, shape), c.lengths(c.dims(x)))
    return c.p.take_along_axis(x, source, min(time, batch) if time == 0 else time, broadcast=False)


@op("Unique")
def unique(c: Any, node: Any, x: Any) -> Any:
    if not node.get("sorted", 1):
        raise node.cannot("in the order of appearance")
    return c.p.unique(c.t(x), True, True, True, node.get("axis"))
