"""Every network of the project as a trainable class, registered by name."""

from models.architectures import enet, fb_resnet, inception_resnet_v2, resnet_v2
from models.architectures.registry import (
    ALIASES,
    ARCHITECTURES,
    Architecture,
    Recognised,
    create,
    find,
    recognise,
)

__all__ = [
    "ALIASES",
    "ARCHITECTURES",
    "Architecture",
    "Recognised",
    "create",
    "enet",
    "fb_resnet",
    "find",
    "inception_resnet_v2",
    "recognise",
    "resnet_v2",
]
