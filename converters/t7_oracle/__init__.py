"""Torch7's layers a second time: plain float64 definitions, restated from the original sources.

Shares nothing with the rules that convert a network but the file reader, so that one can be held
against the other module by module.
"""

from converters.t7_oracle import (  # noqa: F401  each registers its definitions
    containers,
    graphs,
    normalization,
    pointwise,
    pooling,
    shapes,
    tables,
    weights,
)
from converters.t7_oracle.interpreter import DEFINITIONS, Call, follow, run

__all__ = ["DEFINITIONS", "Call", "follow", "run"]
