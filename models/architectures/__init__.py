"""Every network of the project as a trainable class, registered by name."""

# In the order of docs/models.md: importing a family registers it.
from models.architectures import inception_resnet_v2_torch  # isort: skip
from models.architectures import inception_resnet, inception_v3, inception_v4  # isort: skip
from models.architectures import fb_resnet, resnet_v2, gluon_resnet  # isort: skip
from models.architectures import gluon_vgg, gluon_densenet, gluon_squeezenet  # isort: skip
from models.architectures import gluon_inception, gluon_mobilenet  # isort: skip
from models.architectures import enet, efficientnet_lite  # isort: skip
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
    "efficientnet_lite",
    "enet",
    "fb_resnet",
    "find",
    "gluon_densenet",
    "gluon_inception",
    "gluon_mobilenet",
    "gluon_resnet",
    "gluon_squeezenet",
    "gluon_vgg",
    "inception_resnet",
    "inception_resnet_v2_torch",
    "inception_v3",
    "inception_v4",
    "recognise",
    "resnet_v2",
]
