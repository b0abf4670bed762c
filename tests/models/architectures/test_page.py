"""The page of models says what the classes are."""

from models.architectures import ALIASES, ARCHITECTURES, find
from models.architectures.page import counted, page
from tests.oracles import ROOT


def test_the_page_is_current() -> None:
    """Parameters, multiply-adds, conventions and errors are those of the registry."""
    written = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert written == page(), "python -m models.architectures.page > docs/models.md"
    assert all(f"`{name}`" in written for name in (*ARCHITECTURES, *ALIASES))


def test_multiply_adds_are_the_known_ones() -> None:
    """ResNet-50 costs 4.1 thousand million at 224 pixels, depthwise convolutions cost little."""
    assert counted(find("fb_resnet_50")) == (25_557_032, 4_089_184_256)
    assert counted(find("efficientnet_lite0"))[1] < 400e6
