"""Classifiers of paddle.vision.models, in their real shapes. Some take smaller pictures than they were trained on, to save time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from architecture import Architecture, image

#: Name in paddle.vision.models → side of the picture. VGG and AlexNet end in a pooling to 7 × 7 and 6 × 6 that only divides
#: evenly at 224; GoogLeNet's two side outputs want 224 as well.
SIDES = {
    "resnet18": 64,
    "resnet50": 96,
    "resnext50_32x4d": 64,
    "mobilenet_v1": 96,
    "mobilenet_v2": 96,
    "mobilenet_v3_small": 96,
    "mobilenet_v3_large": 96,
    "shufflenet_v2_x0_25": 96,
    "squeezenet1_1": 96,
    "densenet121": 96,
    "inception_v3": 128,
    "googlenet": 224,
    "vgg11": 224,
    "alexnet": 224,
}


def _builder(name: str) -> Callable[[], Any]:
    def build() -> Any:
        from paddle.vision import models

        return getattr(models, name)(num_classes=100)

    return build


def _lenet() -> Any:
    from paddle.vision.models import LeNet

    return LeNet()


ARCHITECTURES = (
    *(Architecture(name, "paddle", _builder(name), (image(side),)) for name, side in SIDES.items()),
    Architecture("lenet", "paddle", _lenet, (image(28, channels=1),)),
)
