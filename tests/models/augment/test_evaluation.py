"""Evaluation sees exactly what an artifact's user sees."""

import numpy as np
import pytest

from models.augment import evaluation
from models.augment.draws import generator
from models.decoding import decode
from models.errors import SpecError
from models.preprocess import preprocess, ten_crops
from models.presets import PRESETS, preset
from tests.models.augment.test_torch_family import as_jpeg, picture


@pytest.mark.parametrize("name", PRESETS)
def test_the_view_is_the_networks_input(name: str) -> None:
    """Every preset's view is what `preprocess` gives, channels last."""
    pixels = picture(40, 50) if "cifar" in name else picture(400, 500)
    view = evaluation(name)(pixels, generator(0, 0, 0))
    assert view.pixels.dtype == np.float32
    assert (view.pixels.transpose(2, 0, 1) == preprocess(pixels, preset(name))).all()


def test_ten_crops_have_a_dimension_more() -> None:
    """Ten views of an image stay together."""
    data = as_jpeg(picture(400, 500))
    view = evaluation("torch-224", ten=True)(data, generator(0, 0, 0))
    assert view.pixels.shape == (10, 224, 224, 3)
    wanted = ten_crops(decode(data), preset("torch-224"))
    assert (view.pixels.transpose(0, 3, 1, 2) == wanted).all()


def test_sizes_can_be_set() -> None:
    """A network of another input size is evaluated at that."""
    view = evaluation("torch-224", size=128, resize=150)(picture(400, 500), generator(0, 0, 0))
    assert view.pixels.shape == (128, 128, 3)
    with pytest.raises(SpecError, match="crop 300x300 does not fit"):
        evaluation("torch-224", size=300)(picture(400, 500), generator(0, 0, 0))
