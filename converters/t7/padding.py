"""Rules that put a border around a tensor, or cut one off."""

from converters.lowering import Value
from converters.t7.images import spatial
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer


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


@layer("nn.SpatialReflectionPadding", "nn.SpatialReplicationPadding")
def spatial_mirror(run: Run, module: Module, x: Tree) -> Tree:
    """A border of mirrored pixels, or of the nearest ones (`nn/SpatialReflectionPadding.lua`)."""
    sides = [module.integer(side) for side in ("pad_l", "pad_r", "pad_t", "pad_b")]
    mirrors = module.source.class_name == "nn.SpatialReflectionPadding"
    return spatial(
        run,
        module,
        run.image(module, x),
        "ReflectionPad2d" if mirrors else "ReplicationPad2d",
        padding=sides,
    )
