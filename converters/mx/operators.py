"""All rules, one for each MXNet operator: its settings -> torch.nn's words.

Every quirk of MXNet lives in these files and is cited by its file in apache/mxnet 1.9.1. Settings
that a file leaves out have MXNet's own defaults. Everything is evaluation mode.
"""

from converters.mx import normalization, outputs, pointwise, pooling, shapes, weights

__all__ = ["normalization", "outputs", "pointwise", "pooling", "shapes", "weights"]
