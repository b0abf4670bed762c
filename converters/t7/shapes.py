"""Rules that change a shape: views of the same memory, and padding."""

import math

from converters.lowering import Value
from converters.t7.network import Handle, Module, Run, Tree, layer
from models.graph import Shape


@layer("nn.View")
def view(run: Run, module: Module, x: Tree) -> Tree:
    """The same memory in another shape, with the batch dimension kept where there is one.

    `numInputDims` says how many dimensions one sample has; what is before them is the batch.
    Without it, elements left over make the batch, and a batch of one disappears (`nn/View.lua`,
    `batchsize`).
    """
    given = run.tensor(module, x)
    size = module.sizes("size")
    rank = len(given.shape)
    sample = min(module.integer("numInputDims"), rank) if module.has("numInputDims") else rank
    held, wanted = math.prod(given.shape[rank - sample :]), math.prod(n for n in size if n >= 0)
    if wanted == 0 or held % wanted:
        raise module.error("size", size, f"a shape for {held:,} elements")
    batch = 1 if -1 in size else held // wanted
    batch *= math.prod(given.shape[: rank - sample])
    if batch == 1 and (not module.has("numInputDims") or rank <= module.integer("numInputDims")):
        return _reshaped(run, module, given, size)
    return _reshaped(run, module, given, (batch, *size))


@layer("nn.Reshape")
def reshape(run: Run, module: Module, x: Tree) -> Tree:
    """The same memory in another shape.

    `batchMode` unset means: a batch unless the elements match without one; an input whose first
    dimension is 1 is a batch in any case (`nn/Reshape.lua`).
    """
    given = run.tensor(module, x)
    size = module.sizes("size")
    if module.has("batchMode"):
        batched = module.flag("batchMode")
    else:
        batched = math.prod(given.shape) != math.prod(size) or given.shape[:1] == (1,)
    return _reshaped(run, module, given, (*given.shape[:1], *size) if batched else size)


def _reshaped(run: Run, module: Module, given: Handle, shape: Shape) -> Handle:
    """View `given` in `shape`; where the first dimension stays, it may be of any size."""
    value = run.read(given)
    if len(shape) == 2 and len(given.shape) > 1 and shape[0] == given.shape[0]:
        flat = run.net.add(module.name, "Flatten", value, start_dim=1, end_dim=-1)
        if shape[1] in (-1, flat.shape[1]):
            return run.view(module, given, flat)
    if shape and given.shape and shape[0] == given.shape[0] and -1 not in shape:
        shape = (-1, *shape[1:])
    return run.view(module, given, run.net.add(module.name, "Reshape", value, shape=list(shape)))


@layer("nn.Padding")
def padding(run: Run, module: Module, x: Tree) -> Tree:
    """`|pad|` times `value` along `dim` before `index`, which counts from the end if `pad` > 0.

    `nInputDim` is the rank without a batch: any other rank moves `dim` by one (`nn/Padding.lua`).
    """
    given = run.tensor(module, x)
    rank, dim, pad = len(given.shape), module.integer("dim"), module.integer("pad")
    if module.has("nInputDim") and rank != module.integer("nInputDim"):
        dim += 1
    if not 1 <= dim <= rank:
        raise module.error("dim", dim, f"1 to {rank}: its input's rank")
    length, index = given.shape[dim - 1], module.integer("index", 1)
    before = length - index + 1 if pad > 0 else index - 1
    if not 0 <= before <= length:
        raise module.error("index", index, f"1 to {length + 1}")
    value, fill, after = run.read(given), module.number("value", 0), 2 * (rank - dim)

    def padded(part: Value, front: int, back: int) -> Value:
        return run.net.add(
            module.name, "Pad", part, padding=[0] * after + [front, back], value=fill
        )

    if before in (0, length):
        return run.fresh(
            module, padded(value, abs(pad) if not before else 0, abs(pad) if before else 0)
        )
    head = run.net.add(f"{module.name}_head", "Narrow", value, dim=dim - 1, start=0, length=before)
    tail = run.net.add(
        f"{module.name}_tail", "Narrow", value, dim=dim - 1, start=before, length=length - before
    )
    return run.fresh(
        module, run.net.add(module.name, "Concat", padded(head, 0, abs(pad)), tail, dim=dim - 1)
    )


@layer("nn.SpatialZeroPadding")
def spatial_zero_padding(run: Run, module: Module, x: Tree) -> Tree:
    """Zeros around each plane; negative numbers crop (`nn/SpatialZeroPadding.lua`)."""
    sides = [module.integer(side) for side in ("pad_l", "pad_r", "pad_t", "pad_b")]
    value = run.read(run.tensor(module, x))
    return run.fresh(module, run.net.add(module.name, "Pad", value, padding=sides, value=0.0))
