"""Models of transformers, a few layers deep, to be traced. Their wrappers name the inputs and leave plain tensors as outputs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from architecture import Architecture, Input, image, normal, prefix, tokens

VOCABULARY = 500
#: Wide enough to be the real thing, narrow enough to be quick. The range keeps each layer's gain near 1, so that attention is not flat.
SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "initializer_range": 0.09,
}
TEXT = {**SMALL, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
PATCHES = {**SMALL, "image_size": 64, "patch_size": 16}
STAGES = {"hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 2, 1], "initializer_range": 0.09}
GROUPED = {**TEXT, "num_key_value_heads": 2, "head_dim": 32}


def _text(*names: str) -> tuple[Input, ...]:
    values = {"input_ids": tokens(VOCABULARY), "attention_mask": prefix, "token_type_ids": tokens(2)}
    return tuple(Input(name, "int64", ("batch", "length"), values[name]) for name in names)


PAIR = _text("input_ids", "attention_mask")
TRIPLE = _text("input_ids", "attention_mask", "token_type_ids")
PIXELS = (image(64, name="pixel_values"),)
MEL = (Input("input_features", "float32", ("batch", 40, 120), normal),)
WAVE = (Input("input_values", "float32", ("batch", 1600), normal),)

HIDDEN, POOLED, LOGITS = ("last_hidden_state",), ("last_hidden_state", "pooler_output"), ("logits",)


@dataclass(frozen=True)
class Entry:
    """kind, config: class names in transformers. part: the submodule that is meant, where it is not the whole."""

    name: str
    kind: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    changes: dict[str, Any] = field(default_factory=dict)
    attention: str = "sdpa"
    part: str = ""
    config: str = ""

    def build(self) -> Any:
        """The wrapped model with random weights."""
        import transformers

        config = self.config or next(self.kind.removesuffix(end) + "Config" for end in ("Model", "ForCausalLM") if self.kind.endswith(end))
        settings = getattr(transformers, config)(**self.changes, attn_implementation=self.attention)
        model = getattr(transformers, self.kind)(settings)
        return wrap(model.get_submodule(self.part), [each.name for each in self.inputs], self.outputs)


def wrap(model: Any, names: list[str], outputs: tuple[str, ...]) -> Any:
    """A module that takes `names` in order and gives the fields `outputs` of the model's result."""
    import torch

    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> Any:
            result = self.model(**dict(zip(names, given, strict=True)), **options)
            return tuple(result[name] for name in outputs)

    # torch.jit.trace names the graph's inputs after the parameters in forward's signature.
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    Wrapped.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return Wrapped()


ENTRIES = (
    Entry("bert", "BertModel", TRIPLE, POOLED, TEXT),
    Entry("roberta", "RobertaModel", PAIR, POOLED, TEXT, attention="eager"),
    Entry("distilbert", "DistilBertModel", PAIR, HIDDEN, {**TEXT, "hidden_dim": 256}),
    Entry(
        "t5_encoder",
        "T5EncoderModel",
        PAIR,
        HIDDEN,
        {**TEXT, "d_kv": 32, "d_ff": 256, "initializer_factor": 1.0},
        attention="eager",
        config="T5Config",
    ),
    Entry("ernie", "ErnieModel", PAIR, POOLED, TEXT),
    Entry("ernie4_5", "Ernie4_5ForCausalLM", PAIR, LOGITS, GROUPED),
    Entry("qwen3", "Qwen3ForCausalLM", PAIR, LOGITS, GROUPED, attention="eager"),
    Entry("gpt2", "GPT2Model", PAIR, HIDDEN, {**TEXT, "bos_token_id": None, "eos_token_id": None}),
    Entry("vit", "ViTModel", PIXELS, POOLED, PATCHES),
    Entry("clip_vision", "CLIPVisionModel", PIXELS, POOLED, PATCHES),
    Entry("dinov2", "Dinov2Model", PIXELS, POOLED, PATCHES, attention="eager"),
    Entry(
        "whisper_encoder",
        "WhisperModel",
        MEL,
        HIDDEN,
        {
            "d_model": 96,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 192,
            "decoder_ffn_dim": 192,
            "num_mel_bins": 40,
            "max_source_positions": 60,
            "init_std": 0.1,
        },
        part="encoder",
    ),
    Entry(
        "wav2vec2",
        "Wav2Vec2Model",
        WAVE,
        HIDDEN,
        {**SMALL, "conv_dim": [32] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
    ),
    Entry("convnext", "ConvNextModel", PIXELS, POOLED, {"layer_scale_init_value": 0.5, **STAGES}, attention="eager"),
    Entry(
        "swin",
        "SwinModel",
        PIXELS,
        POOLED,
        {"image_size": 64, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        attention="eager",
    ),
    Entry("resnet_hf", "ResNetModel", PIXELS, POOLED, {"embedding_size": 32, "layer_type": "basic", **STAGES}, attention="eager"),
    Entry("mobilenet_v2_hf", "MobileNetV2Model", PIXELS, POOLED, {"image_size": 64}, attention="eager"),
    Entry(
        "segformer",
        "SegformerForSemanticSegmentation",
        PIXELS,
        LOGITS,
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4], "decoder_hidden_size": 64},
        config="SegformerConfig",
    ),
)

ARCHITECTURES = tuple(Architecture(entry.name, "torch", entry.build, entry.inputs) for entry in ENTRIES)
