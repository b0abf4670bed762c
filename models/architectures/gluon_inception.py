"""Gluon's Inception-v3: `inception_v3` in Gluon's arrangement, and under its names.

Paper: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv
1512.00567, table 1 and figures 5 to 7.
Source: apache/mxnet python/mxnet/gluon/model_zoo/vision/inception.py.

Layer by layer it is the network of torchvision; there is no auxiliary head. The last pooling has a
stride of 8, which at 299 x 299 makes no difference. The zoo's own name is inceptionv3.
"""

from torch import nn

from models.architectures.gluon_layers import Concurrent, GluonNetwork, facts
from models.architectures.inception_v3 import CLASSIFIER_DROPOUT, InceptionV3
from models.architectures.layers import Branches, Conv
from models.architectures.registry import Architecture, alias, register

FIRST_BLOCK = 7  # of `features`: five convolutions and two poolings before it
BLOCKS = ("A1", "A2", "A3", "B", "C1", "C2", "C3", "C4", "D", "E1", "E2")


def _arranged(part: nn.Module) -> nn.Module:
    """Return a part of `inception_v3` in the containers that Gluon has for it."""
    if isinstance(part, Branches):
        return Concurrent(*map(_way, part.branches))
    return nn.Sequential(*part) if isinstance(part, Conv) else part


def _way(branch: nn.Module) -> nn.Sequential:
    if isinstance(branch, Conv) or not isinstance(branch, nn.Sequential):
        return nn.Sequential(_arranged(branch))
    if isinstance(branch[-1], Branches):  # the way forks after its convolutions
        return nn.Sequential(_way(branch[:-1]), _arranged(branch[-1]))
    return nn.Sequential(*map(_arranged, branch))


class GluonInceptionV3(GluonNetwork):
    """N x 3 x 299 x 299, normalised RGB -> N x `num_classes` logits."""

    scopes = {f"features.{place}": f"{block}_" for place, block in enumerate(BLOCKS, FIRST_BLOCK)}

    def __init__(self, *, num_classes: int = 1000, width_divisor: int = 1) -> None:
        super().__init__()
        whole = InceptionV3(num_classes, width_divisor)
        blocks = [*whole.stem, *whole.blocks_a, whole.reduction_a]
        blocks += [*whole.blocks_b, whole.reduction_b, *whole.blocks_c]
        self.features = nn.Sequential(*map(_arranged, blocks), nn.AvgPool2d(8))
        self.features.extend([nn.Dropout(CLASSIFIER_DROPOUT), nn.Flatten()])
        self.output = whole.classifier
        self.reset_parameters()


register(
    Architecture(
        "gluon_inception_v3",
        "Gluon's Inception-v3",
        GluonInceptionV3,
        size=299,
        residuals=0,
        features=2048,
        preset="gluon-299",
        facts=facts("inception.py"),
    )
)
alias("gluon_inceptionv3", "gluon_inception_v3")
