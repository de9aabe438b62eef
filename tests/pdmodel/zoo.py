"""Seeded Paddle programs of many kinds, saved as people save them. Needs paddle; run as a script it saves the named ones.

`python zoo.py FOLDER [--legacy] [NAME …]` writes FOLDER/NAME/model.json (or .pdmodel) and model.pdiparams.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

if "--legacy" in sys.argv[1:] and __name__ == "__main__":
    os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112  read once, when paddle is loaded

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec
from paddle.vision import models

Made = tuple[Any, list[InputSpec]]


def _image(size: int, dtype: str = "float32") -> list[InputSpec]:
    return [InputSpec([None, 3, size, size], dtype, name="image")]


def _vision(make: Callable[..., Any], size: int = 64) -> Callable[[], Made]:
    return lambda: (make(), _image(size))


class _Encoder(nn.Layer):
    """A BERT-like encoder: tokens and a boolean mask in; states and a pooled vector out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 32), nn.Embedding(64, 32)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, activation="gelu"), 2)
        self.pool = nn.Linear(32, 16)

    def forward(self, ids: Any, mask: Any) -> Any:
        at = paddle.arange(ids.shape[1], dtype="int64").unsqueeze(0)
        bias = (1.0 - mask.astype("float32")).unsqueeze([1, 2]) * -1e4
        states = self.encoder(self.words(ids) + self.places(at), bias)
        return states, paddle.tanh(self.pool(states[:, 0]))


class _Recurrent(nn.Layer):
    """Two layers, both directions; the last states come out too."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.rnn = kind(12, 16, num_layers=2, direction="bidirect")
        self.head = nn.Linear(32, 5)

    def forward(self, x: Any) -> Any:
        y, state = self.rnn(x)
        return self.head(y), state[0] if isinstance(state, tuple) else state


class _Crnn(nn.Layer):
    """Text recognition: convolutions, columns as time steps, an LSTM, probabilities per step."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 32)
        self.convs = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2D(a, b, 3, padding=1), nn.BatchNorm2D(b), nn.Hardswish(), nn.MaxPool2D((2, 2 if i == 0 else 1)))
                for i, (a, b) in enumerate(pairwise(widths))
            )
        )
        self.rnn = nn.LSTM(32 * 4, 24, direction="bidirect")
        self.head = nn.Linear(48, 11)

    def forward(self, image: Any) -> Any:
        x = self.convs(image)
        x = x.transpose([0, 3, 1, 2]).flatten(2)
        return nn.functional.softmax(self.head(self.rnn(x)[0]), -1)


class _Detector(nn.Layer):
    """A one-level YOLO-like head with boxes decoded and suppressed in the program."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2D(3, 16, 3, 4, 1), nn.BatchNorm2D(16), nn.Silu(), nn.Conv2D(16, 32, 3, 2, 1), nn.LeakyReLU(0.1))
        self.neck = nn.Conv2D(32 + 16, 32, 1)
        self.head = nn.Conv2D(32, 4 + 3, 1)

    def forward(self, image: Any) -> Any:
        fine = self.stem[:3](image)
        coarse = nn.functional.interpolate(self.stem[3:](fine), scale_factor=2, mode="nearest")
        out = self.head(nn.functional.relu(self.neck(paddle.concat([fine, coarse], 1)))).flatten(2)
        xy, wh = paddle.split(out[:, :4], 2, axis=1)
        centre, half = 32 + 32 * paddle.tanh(xy), 4 + 8 * nn.functional.sigmoid(wh)
        boxes = paddle.concat([centre - half, centre + half], 1).transpose([0, 2, 1])
        found, _, number = _nms(boxes, nn.functional.sigmoid(out[:, 4:]))
        return found, number


#: In the order in which Paddle's function takes them.
_NMS = {
    "score_threshold": 0.4,
    "nms_top_k": 40,
    "keep_top_k": 20,
    "nms_threshold": 0.5,
    "normalized": True,
    "nms_eta": 1.0,
    "background_label": -1,
}


def _nms(boxes: Any, scores: Any) -> Any:
    from paddle import _C_ops

    return _C_ops.multiclass_nms3(boxes, scores, None, *_NMS.values())


class _Typed(nn.Layer):
    """Integers and booleans in and out, beside floats."""

    def forward(self, ids: Any, keep: Any, x: Any) -> Any:
        rows = paddle.where(keep, ids * 2 + 1, -ids)
        flags = paddle.logical_and(keep, rows > 3)
        return rows, flags, paddle.where(flags, x, paddle.zeros_like(x)).sum(-1)


class _Mlp(nn.Layer):
    """The smallest that has everything a test needs: two layers with a square matrix between."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(8, width), nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Any) -> Any:
        return nn.functional.softmax(self.second(self.norm(nn.functional.gelu(self.first(x)))), -1)


class _Segmenter(nn.Layer):
    """Encoder and decoder with bilinear resizing to the input's own size, as segmentation models have."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2D(3, 12, 3, 2, 1), nn.BatchNorm2D(12), nn.PReLU(12), nn.Conv2D(12, 24, 3, 2, 1, groups=2))
        self.up = nn.Conv2DTranspose(24, 12, 4, 2, 1)
        self.norm, self.head = nn.GroupNorm(3, 12), nn.Conv2D(12, 5, 1)

    def forward(self, image: Any) -> Any:
        x = self.head(nn.functional.relu6(self.norm(self.up(self.down(image)))))
        x = nn.functional.interpolate(x, size=paddle.shape(image)[2:], mode="bilinear", align_corners=False)
        return x, paddle.argmax(x, axis=1)


class _Unmapped(nn.Layer):
    """Operators that ONNX, or paddle2onnx, knows nothing of."""

    def forward(self, x: Any) -> Any:
        return paddle.lgamma(x).sum() + paddle.digamma(paddle.linalg.inv(x)).sum() + paddle.linalg.svd(x)[1].sum()


class _Strict(nn.Layer):
    """What paddle2onnx takes for its defaults where nobody repairs it: attributes that became doubles."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 6, epsilon=0.5)

    def forward(self, x: Any) -> Any:
        x = nn.functional.leaky_relu(self.norm(x), 0.3)
        return nn.functional.pad(x.unsqueeze(2), [1, 2, 1, 0, 0, 1], value=3.0, data_format="NCDHW")


ZOO: dict[str, Callable[[], Made]] = {
    "mlp": lambda: (_Mlp(), [InputSpec([None, 8], "float32", name="x")]),
    "typed": lambda: (
        _Typed(),
        [InputSpec([None, 7], "int64", name="ids"), InputSpec([None, 7], "bool", name="keep"), InputSpec([None, 7], "float32", name="x")],
    ),
    "encoder": lambda: (_Encoder(), [InputSpec([None, None], "int64", name="ids"), InputSpec([None, None], "bool", name="mask")]),
    "lstm": lambda: (_Recurrent(nn.LSTM), [InputSpec([None, None, 12], "float32", name="x")]),
    "gru": lambda: (_Recurrent(nn.GRU), [InputSpec([None, None, 12], "float32", name="x")]),
    "crnn": lambda: (_Crnn(), [InputSpec([None, 3, 32, None], "float32", name="image")]),
    "detector": lambda: (_Detector(), [InputSpec([1, 3, 64, 64], "float32", name="image")]),
    "segmenter": lambda: (_Segmenter(), [InputSpec([None, 3, None, None], "float32", name="image")]),
    "unmapped": lambda: (_Unmapped(), [InputSpec([4, 4], "float32", name="x")]),
    "strict": lambda: (_Strict(), [InputSpec([None, 6, None, 5], "float32", name="x")]),
    "resnet18": _vision(models.resnet18),
    "resnet50": _vision(models.resnet50),
    "mobilenet_v3_small": _vision(models.mobilenet_v3_small),
    "shufflenet": _vision(models.shufflenet_v2_x0_25),
    "squeezenet": _vision(models.squeezenet1_1),
    "googlenet": _vision(models.googlenet, 224),
    "inception_v3": _vision(models.inception_v3, 96),
    "densenet121": _vision(models.densenet121),
    "vgg11": _vision(lambda: models.vgg11(num_classes=10), 32),
    "alexnet": _vision(lambda: models.alexnet(num_classes=10), 224),
    "mobilenet_v1": _vision(lambda: models.mobilenet_v1(scale=0.25)),
    "mobilenet_v2": _vision(lambda: models.mobilenet_v2(scale=0.35)),
}


def build(name: str) -> Made:
    """A seeded layer in evaluation mode, with statistics in its norms that no mistake leaves unnoticed, and its inputs."""
    paddle.seed(len(name))
    layer, specs = ZOO[name]()
    layer.eval()
    rng = np.random.default_rng(len(name))
    for part in layer.sublayers():
        if isinstance(part, nn.layer.norm._BatchNormBase):
            part._mean.set_value(rng.normal(0, 0.1, part._mean.shape).astype("float32"))
            part._variance.set_value(rng.uniform(0.5, 1.5, part._variance.shape).astype("float32"))
        if isinstance(part, (nn.layer.norm._BatchNormBase, nn.LayerNorm, nn.GroupNorm)) and part.weight is not None:
            part.weight.set_value(rng.uniform(0.5, 1.5, part.weight.shape).astype("float32"))
            part.bias.set_value(rng.normal(0, 0.1, part.bias.shape).astype("float32"))
    return layer, specs


def save(name: str, folder: Path) -> Path:
    """Save one of ZOO as paddle.jit.save does; legacy where FLAGS_enable_pir_api=0. Returns `folder`."""
    layer, specs = build(name)
    folder.mkdir(parents=True, exist_ok=True)
    paddle.jit.save(layer, str(folder / "model"), input_spec=specs)
    return folder


def save_all(folder: str, names: Iterable[str]) -> None:
    """`save` each of `names` in a folder of its name."""
    for wanted in names:
        save(wanted, Path(folder) / wanted)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    save_all(words[0], words[1:] or ZOO)
