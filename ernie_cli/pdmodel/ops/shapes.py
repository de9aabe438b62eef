"""What moves elements without changing them: shapes, axes, concatenation, and the shapes themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op

FAR = (1 << 31) - 1


@op("Shape")
def shape(c: Any, node: Any, x: Any) -> Any:
    dims = c.dims(x)
    return dims[slice(node.get("start", 0), node.get("end", len(dims)))]


@op("Size")
def size(c: Any, node: Any, x: Any) -> Any:
    found: Any = 1
    for length in c.dims(x):
        found = found * length
    return _array(found)


def _array(value: Any) -> np.ndarray:
    found = np.empty((), dtype=object)
    found[()] = value
    return found


@op("Reshape")
def reshape(c: Any, node: Any, x: Any, wanted: Any = None) -> Any:
    wanted = np.asarray(node.get("shape"), np.int64) if wanted is None else wanted
    if isinstance(wanted, np.ndarray):
        if isinstance(x, np.ndarray) and x.dtype == object and c.known(wanted):
            return x.reshape([int(length) for length in wanted])
        wanted = wanted.astype(object)
        if node.get("allowzero", 0) and 0 in list(filter(lambda one: isinstance(one, int), wanted)):
            return c.p.zeros([int(length) for length in wanted], c.dtype(x))
        dims = c.dims(x)
        for axis, length in enumerate(wanted):
            if isinstance(length, (int, np.integer)) and length == 0:
                wanted[axis] = dims[axis]
        if all(not isinstance(length, (int, np.integer)) or length >= 0 for length in wanted):
            wanted = _infer_one(dims, wanted)
    return c.reshape(x, wanted)


def _infer_one(dims: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where one length is not fixed, -1 says the same and lets Paddle know the others."""
    unknown = [axis for axis, length in enumerate(wanted) if not isinstance(length, (int, np.integer))]
    if len(unknown) == 1 and 0 not in [length for length in wanted if isinstance(length, (int, np.integer))]:
        wanted = wanted.copy()
        wanted[unknown[0]] = -1
    return wanted


@op("Flatten")
def flatten(c: Any, node: Any, x: Any) -> Any:
    x = c.t(x)
    dims, axis = c.dims(x), node.get("axis", 1)
    axis += len(dims) if axis < 0 else 0
    if all(isinstance(length, int) for length in dims[axis:]):
        return c.reshape(x, [-1, int(np.prod(dims[axis:].astype(np.int64)))])
    first = _product(dims[:axis])
    return c.reshape(x, [first, -1])


def _product(lengths: Any) -> Any:
    found: Any = 1
    for length in lengths:
        found = found * length
    return found


@op("Transpose")
def transpose(c: Any, node: Any, x: Any) -> Any:
    x = c.t(x)
    return c.p.transpose(x, list(node.get("perm") or reversed(range(len(x.shape)))))


@op("Squeeze")
def squeeze(c: Any, node: Any, x: Any, axes: Any = None) -> Any:
    wanted = c.numbers(axes, node, "axes") if axes is not None else list(node.get("axes") or [])
    if isinstance(x, np.ndarray) and x.dtype == object:
        return x.reshape(()) if x.size == 1 and x.ndim == 1 else np.squeeze(x, tuple(wanted) or None)
    x = c.t(x)
    return c.p.squeeze(x, wanted or [axis for axis, length in enumerate(x.shape) if length == 1])


@op("Unsqueeze")
def unsqueeze(c: Any, node: Any, x: Any, axes: Any = None) -> Any:
    wanted = c.numbers(axes, node, "axes") if axes is not None else list(node.get("axes"))
    if isinstance(x, np.ndarray) and x.dtype == object:
        return np.expand_dims(x, tuple(wanted))
    x = c.t(x)
    rank = len(x.shape) + len(wanted)
    return c.p.unsqueeze(x, sorted(axis % rank for axis in wanted))


@op("Concat", "ConcatFromSequence")
def concat(c: Any, node: Any, *values: Any) -> Any:
    axis = node.get("axis", 1)
    if all(isinstance(value, np.ndarray) and value.ndim == 1 and value.size < 32 for value in values) and _integers(c, values):
        return np.concatenate([value.astype(object) for value in values])
    return c.p.concat([c.t(value) for value in values], axis)


def _integers(c: Any, values: Any) -> bool:
    return all(value.dtype == object or value.dtype.kind == "i" for value in values)


@op("Split")
def split(c: Any, node: Any, x: Any, sizes: Any = None) -> Any:
    x, axis = c.t(x), node.get("axis", 0)
    lengths = c.lengths(sizes) if sizes is not None else list(node.get("split") or [])
    if len(node.outputs) == 1 and len(lengths) <= 1:
        return c.p.assign(x)
    if not isinstance(lengths, list):
        raise node.cannot("the number of its pieces is computed while the model runs")
    if not lengths:
        total, pieces = c.dims(x)[axis], len(node.outputs)
        if not isinstance(total, int):
            return tuple(c.p.split(x, pieces, axis))
        each = -(-total // pieces)
        lengths = [each] * (pieces - 1) + [total - each * (pieces - 1)]
    return tuple(c.p.split(x, lengths, axis))


@op("Slice")
def slice_(c: Any, node: Any, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    starts = np.asarray(node.get("starts"), np.int64) if starts is None else starts
    ends = np.asarray(node.get("ends"), np.int64) if ends is None else ends
    axes = np.asarray(node.get("axes"), np.int64) if axes is None and node.get("axes") is not None else axes
    rank = x.ndim if isinstance(x, np.ndarray) else len(x.shape)
    count = len(starts) if isinstance(starts, np.ndarray) else int(starts.shape[0])
    along = [axis % rank for axis in c.numbers(axes, node, "axes")] if axes is not None else list(range(count))
    step = c.numbers(steps, node, "steps") if steps is not None else [1] * count
    if c.known(starts) and c.known(ends) and isinstance(x, np.ndarray):
        index = [slice(None)] * rank
        for axis, begin, end, by in zip(along, c.numbers(starts, node, ""), c.numbers(ends, node, ""), step, strict=True):
            index[axis] = slice(begin, None if by < 0 and end < -x.shape[axis] else end, by)
        return x[tuple(index)]
    begin, end = bounds(c, starts, count), bounds(c, ends, count)
    x = c.t(x)
    if all(by == 1 for by in step):
        return c.p.slice(x, along, begin, end)
    return _strided(c, node, x, (along, begin, end, step))


def bounds(c: Any, value: Any, count: int) -> list[Any]:
    if isinstance(value, np.ndarray):
        return [max(-FAR, min(FAR, int(one))) if isinstance(one, (int, np.integer)) else c.scalar(one) for one in value.ravel()]
    value = c.p.clip(c.p.cast(value, "int64"), -FAR, FAR)
    return [c.p.reshape(c.p.slice(value, [0], [index], [index + 1]), []) for index in range(count)]


def _strided(c: Any, node: Any, x: Any, wanted: tuple[list[int], list[Any], list[Any], list[int]]) -> Any:
    """One axis after the other: backwards is forwards on the flipped axis."""
    for axis, begin, end, by in zip(*wanted, strict=True):
        if by < 0:
            x = c.p.flip(x, [axis])
            begin, end, by = _mirrored(c, begin, c.dims(x)[axis]), _mirrored(c, end, c.dims(x)[axis]), -by
        x = c.p.strided_slice(x, [axis], [begin], [end], [by])
    return x


def _mirrored(c: Any, bound: Any, length: Any) -> Any:
    """Where `bound` lies when the axis is flipped: element i becomes length - 1 - i."""
    if isinstance(bound, int):
        if bound <= -FAR:
            return FAR
        if bound >= FAR:
            return 0
        if bound < 0:
            return -bound - 1
        return max(length - 1 - bound, 0) if isinstance(length, int) else c.p.clip(c.scalar(length) - 1 - bound, 0)
    raise ValueError("a backward slice with bounds that are computed while the model runs")


@op("Expand")
def expand(c: Any, node: Any, x: Any, wanted: Any) -> Any:
    x = c.t(x)
    if not isinstance(wanted, np.ndarray):
        target = c.p.cast(wanted, "int64")
        if target.shape[0] < 0:
            raise node.cannot("the number of its axes is computed while the model runs")
        found = np.empty(int(target.shape[0]), dtype=object)
        for index in range(len(found)):
            found[index] = c.p.reshape(c.p.slice(target, [0], [index], [index + 1]), [])
        wanted = found
    return _expanded(c, x, list(wanted))


def _expanded(c: Any, x: Any, wanted: list[Any]) -> Any:
    dims = list(c.dims(x))
    wanted = [1] * (len(dims) - len(wanted)) + wanted
    dims = [1] * (len(wanted) - len(dims)) + dims
    target = []
    for has, want in zip(dims, wanted, strict=True):
        if isinstance(want, (int, np.integer)):
            target.append(has if want == 1 else int(want))
        elif isinstance(has, int):
            target.append(want if has == 1 else has)
        else:
            target.append(c.p.maximum(c.scalar(has), c.scalar(want)))
    flat = c.dtype(x) == "bool"
    made = c.p.expand(c.p.cast(x, "int32") if flat else x, c.lengths(objects(target)))
    return c.p.cast(made, "bool") if flat else made


def objects(values: list[Any]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


@op("Tile")
def tile(c: Any, node: Any, x: Any, repeats: Any) -> Any:
    return c.p.tile(c.t(x), c.lengths(repeats))


@op("Range")
def range_(c: Any, node: Any, start: Any, limit: Any, delta: Any) -> Any:
    values = [c.reshape(c.t(value), []) for value in (start, limit, delta)]
    return c.p.arange(*values, dtype=c.dtype(values[0]))


@op("ConstantOfShape")
def constant_of_shape(c: Any, node: Any, wanted: Any) -> Any:
    import onnx

    value = onnx.numpy_helper.to_array(node.get("value")).ravel()[0] if node.get("value") is not None else np.float32(0)
    return c.p.full(c.lengths(wanted), value.item(), c.computed(value.dtype.name))


@op("EyeLike")
def eye_like(c: Any, node: Any, x: Any) -> Any:
    import onnx

    dims, k = c.dims(x), node.get("k", 0)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.get("dtype"))).name if node.get("dtype") else c.dtype(x)
    rows, columns = (c.p.arange(c.scalar(length), dtype="int64") for length in dims)
    return c.p.cast(c.p.equal(c.p.unsqueeze(rows, [1]) + k, c.p.unsqueeze(columns, [0])), c.computed(dtype))


@op("Trilu")
def trilu(c: Any, node: Any, x: Any, k: Any = None) -> Any:
    x, diagonal = c.t(x), c.numbers(k, node, "k")[0] if k is not None else 0
    cut = c.p.triu if node.get("upper", 1) else c.p.tril
    if c.dtype(x) == "bool":
        return c.p.cast(cut(c.p.cast(x, "int32"), diagonal), "bool")
    return cut(x, diagonal)


@op("DepthToSpace")
def depth_to_space(c: Any, node: Any, x: Any) -> Any:
    x, b = c.t(x), node.get("blocksize")
    n, depth, high, wide = c.dims(x)
    small = depth // (b * b)
    if node.get("mode", "DCR") == "DCR":
        x = c.p.transpose(c.reshape(x, [n, b, b, small, high, wide]), [0, 3, 4, 1, 5, 2])
    else:
        x = c.p.transpose(c.reshape(x, [n, small, b, b, high, wide]), [0, 1, 4, 2, 5, 3])
    return c.reshape(x, [n, small, high * b, wide * b])


@op("SpaceToDepth")
def space_to_depth(c: Any, node: Any, x: Any) -> Any:
    x, b = c.t(x), node.get("blocksize")
    n, depth, high, wide = c.dims(x)
    x = c.p.transpose(c.reshape(x, [n, depth, high // b, b, wide // b, b]), [0, 3, 5, 1, 2, 4])
    return c.reshape(x, [n, depth * b * b, high // b, wide // b])
