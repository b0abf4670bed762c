"""Rules that change a shape, take a part, join parts, or reduce dimensions.

Where a dimension is the batch is not said; a graph that is the same for two sizes of its first
dimension takes any.
"""

import math

from converters.lowering import Value
from converters.mx.network import Operator, Outputs, Run, operator
from models.graph import Shape


@operator("Flatten", "flatten")
def flatten(run: Run, op: Operator) -> Outputs:
    """All dimensions but the first as one (src/operator/tensor/matrix_op.cc)."""
    given = op.value()
    if len(given.shape) == 1:
        return run.net.add(op.name, "Reshape", given, shape=[-1, 1])
    return run.net.add(op.name, "Flatten", given, start_dim=1, end_dim=-1)


@operator("Reshape", "reshape")
def reshape(run: Run, op: Operator) -> Outputs:
    """Another shape, by sizes and by five codes (`InferReshapeShape` in tensor/matrix_op-inl.h).

    0 keeps a size, -1 takes what is left, -2 keeps all further ones, -3 joins two, -4 splits one
    in the two that follow. With `reverse` they count from the right. Old files have `target_shape`,
    where 0 takes what is left, and with `keep_highest` the first size stays.
    """
    given, settings = op.value(), op.settings
    codes = settings.sizes("shape")
    backwards = settings.flag("reverse", default=False)
    target = settings.sizes("target_shape", least=0)
    keep = settings.flag("keep_highest", default=False)
    if codes:
        old = given.shape[::-1] if backwards else given.shape
        shape = _shaped(op, codes[::-1] if backwards else codes, old)
        shape = shape[::-1] if backwards else shape
    elif target:
        shape = _targeted(target, given.shape, keep=keep)
    else:
        raise settings.error("shape", "nothing", "sizes")
    if math.prod(shape) != math.prod(given.shape):
        raise settings.error("shape", str(codes or target), f"sizes for {given.shape}")
    if len(shape) == 2 and len(given.shape) > 1 and shape[0] == given.shape[0]:
        return run.net.add(op.name, "Flatten", given, start_dim=1, end_dim=-1)
    return run.net.add(op.name, "Reshape", given, shape=[-1, *shape[1:]])


def _shaped(op: Operator, codes: Shape, old: Shape) -> Shape:
    """Return the shape that codes make of another; -1 where it takes what is left.

    MXNet fills that in at the place of the code, which behind -2 or -4 may be another's.
    """
    made: list[int] = []
    left, waiting = list(old), list(codes)
    while waiting:
        code = waiting.pop(0)
        needed = {0: 1, -3: 2, -4: 1}.get(code, 0)
        if code < -4 or len(left) < needed or (code == -4 and len(waiting) < 2):
            raise op.settings.error("shape", str(codes), f"codes for {old}")
        if code == 0:
            made.append(left.pop(0))
        elif code == -2:
            made += left
            left = []
        elif code == -3:
            made.append(left.pop(0) * left.pop(0))
        elif code == -4:
            made += _split(op, left.pop(0), waiting.pop(0), waiting.pop(0))
        else:
            if code == -1 and len(made) != len(codes) - len(waiting) - 1:
                raise op.settings.error("shape", str(codes), "-1 where MXNet fills in what is left")
            made.append(code)
            left = left[1:]
    if made.count(-1) > 1:
        raise op.settings.error("shape", str(codes), "one -1 at most")
    return _filled(tuple(made), old)


def _split(op: Operator, size: int, first: int, second: int) -> list[int]:
    """Return two sizes of which one may be -1, for what the other leaves."""
    known = second if first == -1 else first
    if known < 1 or size % known:
        raise op.settings.error("shape", f"-4, {first}, {second}", f"a split of {size}")
    first, second = (size // known, second) if first == -1 else (first, second)
    return [first, size // first if second == -1 else second]


def _targeted(target: Shape, old: Shape, *, keep: bool) -> Shape:
    start = old[:1] if keep else ()
    made = (*start, *(size or -1 for size in target[len(start) :]))
    return _filled(made, old) if made.count(-1) < 2 else (0,)  # which fits nothing


def _filled(shape: Shape, old: Shape) -> Shape:
    known = math.prod(size for size in shape if size != -1)
    left = math.prod(old) // known if known else 0
    return tuple(left if size == -1 else size for size in shape)


@operator("transpose")
def transpose(run: Run, op: Operator) -> Outputs:
    """Dimensions in another order, in reverse without `axes` (src/operator/tensor/matrix_op.cc)."""
    given = op.value()
    rank = len(given.shape)
    axes = op.settings.sizes("axes", default=tuple(reversed(range(rank))))
    if sorted(axes) != list(range(rank)):
        raise op.settings.error("axes", str(axes), f"an order of {rank} dimensions")
    return run.net.add(op.name, "Permute", given, dims=axes)


@operator("SwapAxis", "swapaxes")
def swap_axis(run: Run, op: Operator) -> Outputs:
    """Two dimensions change places (src/operator/swapaxis-inl.h)."""
    given = op.value()
    first, second = (_axis(op, key, given, op.settings.integer(key, 0)) for key in ("dim1", "dim2"))
    order = list(range(len(given.shape)))
    order[first], order[second] = order[second], order[first]
    return run.net.add(op.name, "Permute", given, dims=order)


@operator("expand_dims")
def expand_dims(run: Run, op: Operator) -> Outputs:
    """A new dimension of size 1 (src/operator/tensor/matrix_op-inl.h)."""
    given = op.value()
    axis = op.settings.integer("axis")
    rank = len(given.shape) + 1
    if not -rank <= axis < rank:
        raise op.settings.error("axis", str(axis), f"one of {rank} dimensions")
    return run.net.add(op.name, "Replicate", given, dim=axis % rank, count=1)


@operator("squeeze")
def squeeze(run: Run, op: Operator) -> Outputs:
    """Without dimensions of size 1: those of `axis`, or all (src/operator/numpy/np_matrix_op.cc).

    Which of all they are depends on the batch, unless `axis` says it. One dimension always stays.
    """
    value = op.value()
    axes = {_axis(op, "axis", value, axis) for axis in op.settings.sizes("axis")}
    axes = axes or {axis for axis, size in enumerate(value.shape) if size == 1}
    if wrong := [axis for axis in axes if value.shape[axis] != 1]:
        raise op.settings.error("axis", str(wrong), f"dimensions of size 1 in {value.shape}")
    axes -= {0} if len(axes) == len(value.shape) else set()
    for axis in sorted(axes, reverse=True):
        value = run.net.add(op.name, "Select", value, dim=axis, index=0)
    return value if axes else run.net.add(op.name, "Identity", value)


@operator("Concat", "concat", inputs=(), varying=True)
def concat(run: Run, op: Operator) -> Outputs:
    """Tensors one after the other, along the second dimension unless the file says otherwise.

    Source: src/operator/nn/concat-inl.h.
    """
    op.expect_as_many()
    values = op.values()
    axis = _axis(op, "dim", values[0], op.settings.integer("dim", 1))
    return run.net.add(op.name, "Concat", *values, dim=axis)


@operator("slice_axis")
def slice_axis(run: Run, op: Operator) -> Outputs:
    """Part of one dimension; no end means all of the rest (src/operator/tensor/matrix_op-inl.h)."""
    given, settings = op.value(), op.settings
    axis = _axis(op, "axis", given, settings.integer("axis"))
    size = given.shape[axis]
    begin = settings.integer("begin")
    end = settings.integer("end") if settings.has("end") else size
    settings.neutral("end")
    begin, end = (bound + size if bound < 0 else bound for bound in (begin, end))
    if not 0 <= begin < end <= size:
        raise settings.error("begin, end", f"{begin}, {end}", f"a part of {size}")
    return _narrowed(run, op, given, [(axis, begin, end)])


@operator("slice", "crop")
def slice_(run: Run, op: Operator) -> Outputs:
    """Part of several dimensions, from the first on (`GetIndexRange` in tensor/matrix_op-inl.h)."""
    given, settings = op.value(), op.settings
    begins, ends = settings.optional("begin"), settings.optional("end")
    steps = settings.optional("step")
    if any(step not in (None, 1) for step in steps):
        raise op.unsupported("steps over numbers")
    counts = {len(begins), len(ends), len(steps or begins)}
    if len(counts) > 1 or len(begins) > len(given.shape):
        raise settings.error("begin, end", f"{begins}, {ends}", f"as many, of {given.shape}")
    parts = []
    for axis, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        size = given.shape[axis]
        first, last = slice(begin, end).indices(size)[:2]
        if begin is not None and begin >= size or last <= first:
            raise settings.error("begin, end", f"{begin}, {end}", f"a part of {size}")
        parts.append((axis, first, last))
    return _narrowed(run, op, given, parts)


@operator("SliceChannel", "split")
def slice_channel(run: Run, op: Operator) -> Outputs:
    """Equal parts along a dimension, each an output (src/operator/slice_channel-inl.h)."""
    given, settings = op.value(), op.settings
    count = settings.integer("num_outputs")
    axis = _axis(op, "axis", given, settings.integer("axis", 1))
    squeezed = settings.flag("squeeze_axis", default=False)
    size = given.shape[axis]
    if count < 1 or size % count or (squeezed and size != count):
        raise settings.error("num_outputs", str(count), f"equal parts of {size}")
    if squeezed:
        return [
            run.net.add(op.name, "Select", given, dim=axis, index=index) for index in range(count)
        ]
    step = size // count
    return [
        run.net.add(op.name, "Narrow", given, dim=axis, start=index * step, length=step)
        for index in range(count)
    ]


@operator("Crop", inputs=(), varying=True)
def crop(run: Run, op: Operator) -> Outputs:
    """Part of an image: of size `h_w`, or as large as a second input (src/operator/crop-inl.h)."""
    op.expect_as_many()
    given, *others = op.values()
    settings = op.settings
    for one in (given, *others):
        op.check_rank(one, "images", 4, 4)
    size = settings.sizes("h_w", 2, (0, 0))
    offset = settings.sizes("offset", 2, (0, 0))
    centred = settings.flag("center_crop", default=False)
    if others:
        op.expect("data", "crop_like")
        size = others[0].shape[2:]
    room = tuple(whole - part for whole, part in zip(given.shape[2:], size, strict=True))
    if centred:
        offset = room[0] // 2, room[1] // 2
    if min(size) < 1 or any(not 0 <= at <= most for at, most in zip(offset, room, strict=True)):
        raise settings.error("h_w, offset", f"{size}, {offset}", f"a part of {given.shape[2:]}")
    return _narrowed(run, op, given, [(2 + i, offset[i], offset[i] + size[i]) for i in range(2)])


def _narrowed(run: Run, op: Operator, value: Value, parts: list[tuple[int, int, int]]) -> Value:
    """Return a part, `(dimension, begin, end)` each; whole dimensions are passed over."""
    parts = [one for one in parts if (one[1], one[2]) != (0, value.shape[one[0]])]
    for axis, begin, end in parts:
        value = run.net.add(op.name, "Narrow", value, dim=axis, start=begin, length=end - begin)
    return value if parts else run.net.add(op.name, "Identity", value)


@operator("Pad", "pad")
def pad(run: Run, op: Operator) -> Outputs:
    """A border around images: of a number, of the edge, or a reflection (src/operator/pad-inl.h).

    `pad_width` names before and after of each dimension in turn; torch.nn begins with the last.
    """
    given, settings = op.value(), op.settings
    mode = settings.one_of("mode", ("constant", "edge", "reflect"))
    widths = settings.sizes("pad_width", 2 * len(given.shape), least=0)
    number = settings.number("constant_value", 0)
    if len(given.shape) != 4 or any(widths[:4]):
        raise settings.error("pad_width", str(widths), "borders of the last 2 of 4 dimensions")
    top, bottom, left, right = widths[4:]
    border = (left, right, top, bottom)
    if mode == "constant":
        return run.net.add(op.name, "Pad", given, padding=border, value=number)
    word = "ReplicationPad2d" if mode == "edge" else "ReflectionPad2d"
    return run.net.add(op.name, word, given, padding=border)


REDUCTIONS = {
    "sum": "Sum",
    "sum_axis": "Sum",
    "mean": "Mean",
    "max": "Max",
    "max_axis": "Max",
    "min": "Min",
    "min_axis": "Min",
}


@operator(*REDUCTIONS)
def reduce(run: Run, op: Operator) -> Outputs:
    """Reduction over the dimensions of `axis`, or with `exclude` over all others.

    Without any it is over all, and gives one number (src/operator/tensor/broadcast_reduce_op.h).
    """
    value, settings = op.value(), op.settings
    rank = len(value.shape)
    axes = {_axis(op, "axis", value, axis) for axis in settings.sizes("axis")}
    keep = settings.flag("keepdims", default=False)
    if settings.flag("exclude", default=False):
        axes = set(range(rank)) - axes
        if not axes:
            raise settings.error("exclude", "all dimensions", "one at least to reduce")
    axes = axes or set(range(rank))
    for axis in sorted(axes, reverse=True):
        last = len(value.shape) == 1  # MXNet has no tensor without dimensions
        word = REDUCTIONS[op.op]
        value = run.net.add(op.name, word, value, dim=axis, keepdim=keep or last)
    return value


def _axis(op: Operator, key: str, given: Value, axis: int) -> int:
    rank = len(given.shape)
    if not -rank <= axis < rank:
        raise op.settings.error(key, str(axis), f"one of {rank} dimensions")
    return axis % rank
