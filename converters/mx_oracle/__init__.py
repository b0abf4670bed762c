"""MXNet's operators a second time: plain float64 definitions, restated from the original sources.

Shares nothing with the rules that convert a network but the file readers, so that one can be held
against the other operator by operator.
"""

from converters.mx_oracle import (  # noqa: F401  each registers its definitions
    normalization,
    pointwise,
    pooling,
    shapes,
    weights,
)
from converters.mx_oracle.interpreter import DEFINITIONS, Call, follow

__all__ = ["DEFINITIONS", "Call", "follow"]
