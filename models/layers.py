"""The small modules of graphs that torch.nn lacks; `models.ops` lists them with torch.nn's own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own habit


class Add(nn.Module):
    """Sum of two tensors."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Sub(nn.Module):
    """The first tensor less the second; shapes broadcast, here and below."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x - y


class Mul(nn.Module):
    """Product of two tensors, element by element."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


class Div(nn.Module):
    """The first tensor by the second, element by element."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x / y


class Maximum(nn.Module):
    """The larger of each two elements."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.maximum(x, y)


class Minimum(nn.Module):
    """The smaller of each two elements."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.minimum(x, y)


class MatMul(nn.Module):
    """Matrix product of two tensors, or of two batches of them."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y


class Abs(nn.Module):
    """Without the sign."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class Exp(nn.Module):
    """e to the power of each element."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class Log(nn.Module):
    """Natural logarithm."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log()


class Power(nn.Module):
    """Each element to the power of a constant."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: Tensor) -> Tensor:
        return x.pow(self.exponent)


class Shift(nn.Module):
    """A tensor plus a constant."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


class AtLeast(nn.Module):
    """A tensor, or a constant where that is larger."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=self.value)


class AtMost(nn.Module):
    """A tensor, or a constant where that is smaller."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.value)


class LearnedScale(nn.Module):
    """A tensor times a learned one of `shape`, which broadcasts."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = list(shape)
        self.weight = nn.Parameter(torch.ones(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class LearnedShift(nn.Module):
    """A tensor plus a learned one of `shape`, which broadcasts."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = list(shape)
        self.bias = nn.Parameter(torch.zeros(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class _Reduction(nn.Module):
    def __init__(self, dim: int, keepdim: bool) -> None:
        super().__init__()
        self.dim = dim
        self.keepdim = keepdim


class Sum(_Reduction):
    """Sum along `dim`, which stays with one entry if `keepdim`, here and below."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(self.dim, self.keepdim)


class Mean(_Reduction):
    """Mean along `dim`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dim, self.keepdim)


class Max(_Reduction):
    """Largest along `dim`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(self.dim, self.keepdim)


class Min(_Reduction):
    """Smallest along `dim`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amin(self.dim, self.keepdim)


class Permute(nn.Module):
    """Dimensions in another order."""

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = list(dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)


class Select(nn.Module):
    """Entry `index` of dimension `dim`, which disappears."""

    def __init__(self, dim: int, index: int) -> None:
        super().__init__()
        self.dim = dim
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return x.select(self.dim, self.index)


class Replicate(nn.Module):
    """The tensor `count` times along a new dimension `dim`."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.dim = dim
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        sizes = [-1] * (x.dim() + 1)
        sizes[self.dim] = self.count
        return x.unsqueeze(self.dim).expand(sizes)


class Concat(nn.Module):
    """Tensors one after the other along `dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, self.dim)


class Scale(nn.Module):
    """A tensor times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Reshape(nn.Module):
    """A tensor in another shape; -1 stands for the size that remains."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = list(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.shape)


class Pad(nn.Module):
    """A border of `value`; `padding` is given last dimension first, as in torch; negative crops."""

    def __init__(self, padding: Sequence[int], value: float) -> None:
        super().__init__()
        self.padding = list(padding)
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding, value=self.value)


class Narrow(nn.Module):
    """`length` entries of dimension `dim` from `start`."""

    def __init__(self, dim: int, start: int, length: int) -> None:
        super().__init__()
        self.dim = dim
        self.start = start
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(self.dim, self.start, self.length)


class RReLU(nn.RReLU):
    """Leaky ReLU with a slope drawn between `lower` and `upper`, half way in evaluation mode.

    The ONNX exporter has no rule for torch's own, which is the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        return F.leaky_relu(x, (self.lower + self.upper) / 2)


class AdaptiveMaxPool2d(nn.Module):
    """Max pooling to `output_size`, window by window.

    The ONNX exporter has no rule for torch's own, which is the same.
    """

    def __init__(self, output_size: tuple[int, int]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        for dim, count in zip((-2, -1), self.output_size, strict=True):
            size = x.shape[dim]
            windows = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
            parts = [x.narrow(dim, a, b - a).amax(dim, keepdim=True) for a, b in windows]
            x = torch.cat(parts, dim)
        return x


class MaxPoolIndices(nn.MaxPool2d):
    """Where max pooling found each maximum: an index into its plane, int64."""

    def forward(self, x: Tensor) -> Tensor:
        _, indices = F.max_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            return_indices=True,
        )
        return indices


class MaxUnpool(nn.Module):
    """Values put back where `MaxPoolIndices` found them, zeros elsewhere.

    Written as a scatter because the ONNX exporter has no rule for torch's own unpooling.
    """

    def __init__(self, output_size: Sequence[int]) -> None:
        super().__init__()
        self.output_size = list(output_size)

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        height, width = self.output_size
        zeros = x.new_zeros(x.shape[0], x.shape[1], height * width)
        flat = zeros.scatter(2, indices.flatten(2), x.flatten(2))
        return flat.reshape(x.shape[0], x.shape[1], height, width)
