"""The last step of an augmentation, for a batch and on any device."""

import torch
from torch import Tensor


def apply(pixels: Tensor, matrix: Tensor, vector: Tensor) -> Tensor:
    """Return the network's input: each image's colours through its own map.

    Sums and products of float32, not a matrix product, which a GPU might round to TF32.

    Args:
        pixels: N x H x W x 3, bytes; float32 ones are the network's input already, and may have
            dimensions between.
        matrix: N x 3 x 3.
        vector: N x 3.

    Returns:
        N x 3 x H x W, float32.
    """
    planes = pixels.movedim(-1, -3)
    numbers = planes.to(torch.float32, memory_format=torch.contiguous_format)
    if planes.is_floating_point():
        return numbers
    columns = matrix[..., None, None].unbind(2)  # N x 3 x 1 x 1 for each colour
    result = torch.addcmul(vector[..., None, None], columns[0], numbers[:, :1])
    return result.addcmul_(columns[1], numbers[:, 1:2]).addcmul_(columns[2], numbers[:, 2:])
