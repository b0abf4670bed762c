"""Rules that make images larger."""

from converters.t7.images import spatial
from converters.t7.module import Module
from converters.t7.network import Run, Tree, layer


@layer("nn.SpatialUpSamplingNearest")
def spatial_up_sampling_nearest(run: Run, module: Module, x: Tree) -> Tree:
    """Every pixel `scale_factor` times in both directions (`nn/SpatialUpSamplingNearest.lua`)."""
    return _nearest(run, module, x)


@layer("nn.SpatialUpSamplingBilinear")
def spatial_up_sampling_bilinear(run: Run, module: Module, x: Tree) -> Tree:
    """Bilinear with corners on corners, by a factor or to a size.

    Source: `nn/SpatialUpSamplingBilinear.lua`.
    """
    return _bilinear(run, module, x)


@layer("nn.UpSampling")
def up_sampling(run: Run, module: Module, x: Tree) -> Tree:
    """Either of the two, by `mode` (`nn/UpSampling.lua`)."""
    mode = module.source.fields.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise module.error("mode", mode, "nearest or linear")
    return _nearest(run, module, x) if mode == "nearest" else _bilinear(run, module, x)


def _nearest(run: Run, module: Module, x: Tree) -> Tree:
    factor = module.integer("scale_factor")
    return spatial(run, module, run.image(module, x), "UpsamplingNearest2d", scale_factor=factor)


def _bilinear(run: Run, module: Module, x: Tree) -> Tree:
    given = run.image(module, x)
    if module.has("scale_factor"):
        factor = module.integer("scale_factor")
        size = given.shape[-2] * factor, given.shape[-1] * factor
    else:
        size = module.integer("oheight"), module.integer("owidth")
    if min(size) < 1:
        raise module.error("scale_factor, oheight, owidth", size, "a size of 1 or more")
    return spatial(run, module, given, "UpsamplingBilinear2d", size=size)


@layer("nn.PixelShuffle")
def pixel_shuffle(run: Run, module: Module, x: Tree) -> Tree:
    """Groups of planes spread out into larger ones (`nn/PixelShuffle.lua`)."""
    factor = module.integer("upscaleFactor")
    return spatial(run, module, run.image(module, x), "PixelShuffle", upscale_factor=factor)
