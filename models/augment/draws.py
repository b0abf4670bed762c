"""The random numbers of one image in one epoch."""

import numpy as np


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return a generator that depends on these three numbers alone.

    Philox is a function of a key and a counter: seed and epoch are the key, and each image has a
    stretch of the counter for itself, of which nobody uses up 2^128 blocks.
    """
    return np.random.Generator(np.random.Philox(key=(seed, epoch), counter=(0, 0, index, 0)))
