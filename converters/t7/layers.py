"""All rules, one for each Torch7 class: its fields -> torch.nn's words.

Every quirk of Torch7 lives in these files and is cited: `nn/X.lua` is torch/nn, `THNN/X.c` its C
kernels, `cudnn/X.lua` is soumith/cudnn.torch, `cunn/X.lua` torch/cunn, `nngraph/X.lua`
torch/nngraph, `inn/X.lua` szagoruyko/imagine-nn, `dpnn/X.lua` Element-Research/dpnn. Torch7 names
width first, torch.nn height first. Everything is evaluation mode, whatever `train` the file was
saved with.
"""

from converters.t7 import (
    containers,
    graphs,
    normalization,
    padding,
    pointwise,
    pooling,
    reductions,
    resizing,
    shapes,
    tables,
    weights,
)

__all__ = [
    "containers",
    "graphs",
    "normalization",
    "padding",
    "pointwise",
    "pooling",
    "reductions",
    "resizing",
    "shapes",
    "tables",
    "weights",
]
