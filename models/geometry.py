"""What size an image gets, and which part of it a crop keeps."""

from typing import NamedTuple

from models.errors import SpecError
from models.spec import InputSpec


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


class Window(NamedTuple):
    """The rows and columns of the resized image that a crop keeps."""

    rows: range
    columns: range


def resized(given: Size, spec: InputSpec) -> Size:
    """Return the size that an image of the `given` size is resized to."""
    if spec.resize_mode == "exact":
        return Size(spec.resize, spec.resize)
    shorter, longer = sorted(given)
    if shorter == spec.resize:
        return given
    if spec.resample == "torch7-bicubic":  # fb.resnet.torch rounds the quotient, then truncates
        longer = int(longer / shorter * spec.resize)
    else:
        longer = longer * spec.resize // shorter
    return Size(longer, spec.resize) if given.width < given.height else Size(spec.resize, longer)


def whole(size: Size) -> Window:
    """Return the window that leaves nothing out."""
    return Window(range(size.height), range(size.width))


def centre(size: Size, spec: InputSpec) -> Window:
    """Return the window of the centre crop.

    Raises:
        SpecError: The crop is larger than the resized image.
    """
    height, width = spec.crop
    if height > size.height or width > size.width:
        raise SpecError(
            f"crop {height}x{width} does not fit into the resized image of "
            f"{size.height}x{size.width} pixels: {spec}"
        )
    top = _half(size.height - height, spec.crop_origin)
    left = _half(size.width - width, spec.crop_origin)
    return Window(range(top, top + height), range(left, left + width))


def five(size: Size, spec: InputSpec) -> list[Window]:
    """Return the windows of the centre and the four corners, the upper ones first.

    Raises:
        SpecError: The crop is larger than the resized image.

    Source: facebook/fb.resnet.torch datasets/transforms.lua, TenCrop.
    """
    middle = centre(size, spec)
    height, width = spec.crop
    rows = (range(height), range(size.height - height, size.height))
    columns = (range(width), range(size.width - width, size.width))
    return [middle, *(Window(row, column) for row in rows for column in columns)]


def _half(margin: int, origin: str) -> int:
    """Return half of a margin; `origin` says what becomes of an odd one."""
    if origin == "half-even":
        return round(margin / 2)  # Python rounds a half to the even neighbour
    return (margin + 1) // 2 if origin == "ceil" else margin // 2
