"""Named input conventions, and the files and structures whose convention is known.

Nothing else in the repository contains these numbers: the artifact carries them from here on.
"""

import json
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from models.errors import SpecError
from models.spec import InputSpec, Resample, checked_input

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Colour = tuple[float, float, float]


def _small(resample: Resample, *, mean: Colour, std: Colour, source: str) -> InputSpec:
    """Return the convention of CIFAR's 32 x 32 images, which are taken as they are, 0 to 255."""
    return InputSpec(
        resize=32,
        resize_mode="shorter",
        resample=resample,
        crop=(32, 32),
        crop_origin="ceil",
        order="RGB",
        scale=1.0,
        mean=mean,
        std=std,
        source=source,
    )


PRESETS: dict[str, InputSpec] = {
    "torch-299": InputSpec(
        resize=328,
        resize_mode="shorter",
        resample="torch7-bicubic",
        crop=(299, 299),
        crop_origin="ceil",  # 328 - 299 is odd: Lua starts at 15, Python's round(14.5) is 14
        order="RGB",
        scale=1 / 255,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source="lim0606/fb.resnet.torch datasets/imagenet.lua, datasets/transforms.lua",
    ),
    "torch-224": InputSpec(
        resize=256,
        resize_mode="shorter",
        resample="torch7-bicubic",
        crop=(224, 224),
        crop_origin="ceil",
        order="RGB",
        scale=1 / 255,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source="facebook/fb.resnet.torch datasets/imagenet.lua, datasets/transforms.lua",
    ),
    "torch-cifar10": _small(
        "torch7-bicubic",
        mean=(125.3, 123.0, 113.9),
        std=(63.0, 62.1, 66.7),
        source="facebook/fb.resnet.torch datasets/cifar10.lua",
    ),
    "torch-cifar100": _small(
        "torch7-bicubic",
        mean=(129.3, 124.1, 112.4),
        std=(68.2, 65.4, 70.4),
        source="facebook/fb.resnet.torch datasets/cifar100.lua",
    ),
    "enet-224": InputSpec(
        resize=256,
        resize_mode="shorter",
        resample="torch7-bilinear",
        crop=(224, 224),
        crop_origin="ceil",
        order="RGB",
        scale=1 / 255,
        mean=IMAGENET_MEAN,  # its own, estimated anew on each machine from 10,000 training images,
        std=IMAGENET_STD,  # were never published; these were estimated the same way
        source="soumith/imagenet-multiGPU.torch donkey.lua",
    ),
    "mxnet-224": InputSpec(
        resize=256,
        resize_mode="shorter",
        resample="opencv-bilinear",
        crop=(224, 224),
        crop_origin="floor",
        order="RGB",
        scale=1.0,  # the network's first layer normalises
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        source="tornadomeet/ResNet train_resnet.py, apache/mxnet tools/im2rec.cc",
    ),
    "mxnet-224-squash": InputSpec(
        resize=224,
        resize_mode="exact",
        resample="opencv-bilinear",
        crop=(224, 224),
        crop_origin="floor",
        order="RGB",
        scale=1.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        source="tornadomeet/ResNet predict/predict.py",
    ),
    "mxnet-cifar10": _small(
        "opencv-bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        source="tornadomeet/ResNet train_resnet.py",
    ),
    "gluon-224": InputSpec(
        resize=256,
        resize_mode="shorter",
        resample="opencv-bilinear",
        crop=(224, 224),
        crop_origin="floor",
        order="RGB",
        scale=1 / 255,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source="dmlc/gluon-cv scripts/classification/imagenet/verify_pretrained.py",
    ),
    "gluon-299": InputSpec(
        resize=342,  # ceil(299 / 0.875)
        resize_mode="shorter",
        resample="opencv-bilinear",
        crop=(299, 299),
        crop_origin="floor",
        order="RGB",
        scale=1 / 255,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source="dmlc/gluon-cv scripts/classification/imagenet/verify_pretrained.py",
    ),
    "torchvision-299": InputSpec(
        resize=342,
        resize_mode="shorter",
        resample="pillow-bilinear",
        crop=(299, 299),
        crop_origin="half-even",
        order="RGB",
        scale=1 / 255,
        mean=(0.5, 0.5, 0.5),  # what `transform_input` makes of ImageNet's inside the network
        std=(0.5, 0.5, 0.5),
        source="pytorch/vision torchvision/models/inception.py, Inception_V3_Weights",
    ),
    "lornatang-299": InputSpec(
        resize=342,
        resize_mode="shorter",
        resample="pillow-bilinear",  # torchvision's default
        crop=(299, 299),
        crop_origin="half-even",  # 342 - 299 is odd: torchvision rounds 21.5 to 22
        order="RGB",
        scale=1 / 255,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source="Lornatang/InceptionV4-PyTorch dataset.py, config.py",
    ),
    "lornatang-299-squash": InputSpec(
        resize=299,
        resize_mode="exact",
        resample="pillow-bilinear",
        crop=(299, 299),
        crop_origin="half-even",
        order="RGB",
        scale=1 / 255,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source="Lornatang/InceptionV4-PyTorch inference.py",
    ),
    "timm-299-0.875": InputSpec(
        resize=341,  # floor(299 / 0.875)
        resize_mode="shorter",
        resample="pillow-bicubic",
        crop=(299, 299),
        crop_origin="half-even",
        order="RGB",
        scale=1 / 255,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        source="huggingface/pytorch-image-models timm/models/inception_v4.py, inception_v3.py",
    ),
    "timm-299-0.8975": InputSpec(
        resize=333,  # floor(299 / 0.8975)
        resize_mode="shorter",
        resample="pillow-bicubic",
        crop=(299, 299),
        crop_origin="half-even",
        order="RGB",
        scale=1 / 255,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        source="huggingface/pytorch-image-models timm/models/inception_resnet_v2.py",
    ),
    "efficientnet-lite0": InputSpec(
        resize=256,
        resize_mode="shorter",
        resample="pillow-bicubic",
        crop=(224, 224),
        crop_origin="floor",
        order="RGB",
        scale=1.0,
        mean=(127.0, 127.0, 127.0),  # not ImageNet's: those cost this network ten points
        std=(128.0, 128.0, 128.0),
        source="tensorflow/tpu models/official/efficientnet/lite/efficientnet_lite_builder.py",
    ),
    "efficientnet-lite1": InputSpec(
        resize=272,
        resize_mode="shorter",
        resample="pillow-bicubic",
        crop=(240, 240),
        crop_origin="floor",
        order="RGB",
        scale=1.0,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        source="tensorflow/tpu models/official/efficientnet/lite/efficientnet_lite_builder.py",
    ),
    "efficientnet-lite2": InputSpec(
        resize=292,
        resize_mode="shorter",
        resample="pillow-bicubic",
        crop=(260, 260),
        crop_origin="floor",
        order="RGB",
        scale=1.0,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        source="tensorflow/tpu models/official/efficientnet/lite/efficientnet_lite_builder.py",
    ),
}

# Files whose convention their structure does not tell, by the SHA-256 of the unpacked checkpoint.
RELEASES: dict[str, str] = {
    "c669bbb4e0b14b516d7d8c71805ae09cfb31b0b3ce0243fb589ed130f409da88": "efficientnet-lite0",
}


def preset(name: str) -> InputSpec:
    """Return the input convention of that name, or in that `.json` file.

    The file has the fields of InputSpec, as an artifact's spec has them under `input`.

    Raises:
        SpecError: There is none, the message lists what there is; or the file holds no convention.
    """
    if name.endswith(".json"):
        return _read(Path(name))
    if name not in PRESETS:
        raise SpecError(f"--input {name}: no such preset; there are {described()}, none")
    return PRESETS[name]


def _read(path: Path) -> InputSpec:
    try:
        return checked_input(json.loads(path.read_text(encoding="utf-8")))
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        wanted = ", ".join(field.name for field in fields(InputSpec))
        reason = f"no {error.args[0]}" if type(error) is KeyError else error
        raise SpecError(f"{path}: no input convention ({reason}): expected {wanted}") from error


def described(sizes: Collection[int] | None = None) -> str:
    """Return the presets with what they do to an image's size, for messages.

    Those that give images of one of these sizes, if any are named.
    """
    return ", ".join(
        f"{name} ({given.resize} to {given.crop[0]})"
        for name, given in PRESETS.items()
        if sizes is None or given.crop[0] in sizes
    )
