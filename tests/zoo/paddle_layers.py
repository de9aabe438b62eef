"""Models written here on paddle.nn: sequence models, a detector, a text recogniser, a segmenter. Classifiers are in paddle_vision."""

from __future__ import annotations

from typing import Any

from architecture import Architecture, Input, image, normal, prefix, tokens

VOCABULARY = 200


def _encoder() -> Any:
    """Token and position embeddings, three encoder layers with a padding mask, one vector per text."""
    import paddle
    from paddle import nn

    class Encoder(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(VOCABULARY, 96), nn.Embedding(64, 96)
            layer = nn.TransformerEncoderLayer(96, 4, 192, dropout=0.0, activation="gelu")
            self.encoder = nn.TransformerEncoder(layer, 3)
            self.head = nn.Linear(96, 7)

        def forward(self, ids: Any, mask: Any) -> Any:
            places = paddle.arange(paddle.shape(ids)[1]).unsqueeze(0)
            x = self.words(ids) + self.places(places)
            bias = (1.0 - mask.astype("float32")).unsqueeze([1, 2]) * -1e4
            x = self.encoder(x, bias)
            return x, self.head(x[:, 0])

    return Encoder()


def _decoder() -> Any:
    """A causal decoder in the manner of ERNIE and LLaMA: RMS norms, rotary places, grouped heads, SwiGLU."""
    import paddle
    from paddle import nn
    from paddle.nn import functional as F

    class Norm(nn.Layer):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight = self.create_parameter([size], default_initializer=nn.initializer.Constant(1.0))

        def forward(self, x: Any) -> Any:
            return x * paddle.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.weight

    class Block(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = Norm(64), Norm(64)
            self.q, self.k, self.v = (nn.Linear(64, size, bias_attr=False) for size in (64, 32, 32))
            self.o = nn.Linear(64, 64, bias_attr=False)
            self.gate, self.up, self.down = (nn.Linear(*s, bias_attr=False) for s in ((64, 160), (64, 160), (160, 64)))

        def forward(self, x: Any, cos: Any, sin: Any, bias: Any) -> Any:
            def heads(y: Any, count: int) -> Any:
                return y.reshape([0, 0, count, 16]).transpose([0, 2, 1, 3])

            def rotate(y: Any) -> Any:
                left, right = y[..., :8], y[..., 8:]
                return y * cos + paddle.concat([-right, left], -1) * sin

            h = self.before(x)
            q, k, v = rotate(heads(self.q(h), 4)), rotate(heads(self.k(h), 2)), heads(self.v(h), 2)
            k, v = (y.repeat_interleave(2, axis=1) for y in (k, v))
            weights = F.softmax(paddle.matmul(q, k, transpose_y=True) * 0.25 + bias, -1)
            x = x + self.o(paddle.matmul(weights, v).transpose([0, 2, 1, 3]).reshape([0, 0, 64]))
            h = self.after(x)
            return x + self.down(F.silu(self.gate(h)) * self.up(h))

    class Decoder(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(VOCABULARY, 64)
            self.blocks = nn.LayerList([Block() for _ in range(2)])
            self.norm = Norm(64)

        def forward(self, ids: Any) -> Any:
            length = paddle.shape(ids)[1]
            place = paddle.arange(length).astype("float32")
            angle = place.unsqueeze(1) * (10000.0 ** (-paddle.arange(8).astype("float32") / 8)).unsqueeze(0)
            angle = paddle.concat([angle, angle], -1)
            bias = paddle.triu(paddle.ones([length, length]) * -1e4, 1)
            x = self.words(ids)
            for block in self.blocks:
                x = block(x, paddle.cos(angle), paddle.sin(angle), bias)
            return paddle.matmul(self.norm(x), self.words.weight, transpose_y=True)

    return Decoder()


def _recurrent(kind: str) -> Any:
    """Two bidirectional layers; the whole sequence and a class per text come out."""
    from paddle import nn

    class Recurrent(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = getattr(nn, kind)(24, 48, num_layers=2, direction="bidirect")
            self.head = nn.Linear(96, 5)

        def forward(self, features: Any) -> Any:
            x, _ = self.rnn(features)
            return x, self.head(x.mean(1))

    return Recurrent()


def _block(into: int, out: int, stride: int = 1) -> Any:
    from paddle import nn

    return nn.Sequential(nn.Conv2D(into, out, 3, stride, 1), nn.BatchNorm2D(out), nn.LeakyReLU(0.1))


def _detector(suppress: bool) -> Any:
    """A small YOLO head: backbone, boxes of two scales and their scores; `suppress` ends it in multiclass NMS, as exported detectors do."""
    import paddle
    from paddle import nn
    from paddle.vision import ops

    class Detector(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(_block(3, 16, 2), _block(16, 32, 2), _block(32, 48, 2))
            self.deep = _block(48, 64, 2)
            self.near, self.far = nn.Conv2D(48, 2 * 9, 1), nn.Conv2D(64, 2 * 9, 1)

        def forward(self, image: Any, size: Any) -> Any:
            x = self.stem(image)
            near = ops.yolo_box(self.near(x), size, [10, 13, 24, 20], 4, 0.01, 8)
            far = ops.yolo_box(self.far(self.deep(x)), size, [40, 50, 60, 45], 4, 0.01, 16)
            boxes, scores = paddle.concat([near[0], far[0]], 1), paddle.concat([near[1], far[1]], 1).transpose([0, 2, 1])
            if not suppress:
                return boxes, scores
            kept = paddle._C_ops.multiclass_nms3(boxes, scores, None, 0.05, 60, 20, 0.45, True, 1.0, -1)
            return kept[0], kept[2]

    return Detector()


def _recogniser() -> Any:
    """CRNN as in OCR: convolutions, one column per step, a bidirectional LSTM, a distribution over characters. Dynamic width."""
    from paddle import nn
    from paddle.nn import functional as F

    class Recogniser(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(_block(3, 16), nn.MaxPool2D(2, 2), _block(16, 32), nn.MaxPool2D(2, 2))
            self.deep = nn.Sequential(_block(32, 48), nn.MaxPool2D((2, 1), (2, 1)), _block(48, 64), nn.MaxPool2D((4, 1), (4, 1)))
            self.rnn = nn.LSTM(64, 48, direction="bidirect")
            self.head = nn.Linear(96, 40)

        def forward(self, image: Any) -> Any:
            x = self.deep(self.stem(image)).squeeze(2).transpose([0, 2, 1])
            x, _ = self.rnn(x)
            return F.softmax(self.head(x), -1)

    return Recogniser()


def _segmenter() -> Any:
    """A U-Net: one way up by transposed convolution, one by bilinear resizing; a score map and the class of each pixel come out."""
    import paddle
    from paddle import nn
    from paddle.nn import functional as F

    class Segmenter(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = _block(3, 16), _block(16, 32), _block(32, 48)
            self.pool = nn.MaxPool2D(2, 2)
            self.up = nn.Conv2DTranspose(48, 32, 2, 2)
            self.middle, self.last = _block(64, 32), _block(48, 16)
            self.head = nn.Conv2D(16, 4, 1)

        def forward(self, image: Any) -> Any:
            a = self.one(image)
            b = self.two(self.pool(a))
            c = self.three(self.pool(b))
            b = self.middle(paddle.concat([self.up(c), b], 1))
            a = self.last(paddle.concat([F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False), a], 1))
            scores = self.head(a)
            return scores, scores.argmax(1)

    return Segmenter()


SEQUENCE = Input("features", "float32", ("batch", "length", 24), normal)
IDS = Input("ids", "int64", ("batch", "length"), tokens(VOCABULARY))
LINE = Input("image", "float32", ("batch", 3, 32, "width"), normal)


def _detected(batch: int | str) -> tuple[Input, ...]:
    """A picture, and the height and width it had before it was resized."""
    return image(64, batch=batch), Input("size", "int32", (batch, 2), lambda rng, shape: rng.integers(60, 130, shape))


ARCHITECTURES = (
    Architecture("paddle_encoder", "paddle", _encoder, (IDS, Input("mask", "int64", ("batch", "length"), prefix))),
    Architecture("paddle_decoder", "paddle", _decoder, (IDS,)),
    Architecture("paddle_lstm", "paddle", lambda: _recurrent("LSTM"), (SEQUENCE,)),
    Architecture("paddle_gru", "paddle", lambda: _recurrent("GRU"), (SEQUENCE,)),
    Architecture("yolo_head", "paddle", lambda: _detector(False), _detected("batch")),
    # paddle2onnx: multiclass_nms3 is exported for a batch of 1 only.
    Architecture("yolo_nms", "paddle", lambda: _detector(True), _detected(1)),
    Architecture("crnn", "paddle", _recogniser, (LINE,)),
    Architecture("unet", "paddle", _segmenter, (image(48),)),
)
