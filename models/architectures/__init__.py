"""Every network of the project as a trainable class, registered by name."""

from models.architectures import inception_resnet_v2
from models.architectures.registry import ARCHITECTURES, Architecture, Recognised, create, recognise

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Recognised",
    "create",
    "inception_resnet_v2",
    "recognise",
]
