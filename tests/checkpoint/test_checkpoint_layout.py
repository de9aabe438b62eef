"""The table of the two layouts against the published facts (ernie45.md §4): names, shapes, order of joined parts."""

from __future__ import annotations

import numpy as np
import pytest
from raw_files import TINY, hf_tensors, paddle_tensors, write, write_checkpoint

from ernie_cli.checkpoint.config import parse_config
from ernie_cli.checkpoint.layout import layout_of, tensors
from ernie_cli.errors import InputError

#: ERNIE-4.5-0.3B
PUBLISHED = {
    **TINY,
    "vocab_size": 103424,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 18,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
}
PADDLE_SHAPES = {
    "ernie.embed_tokens.weight": (103424, 1024),
    "ernie.layers.0.input_layernorm.weight": (1024,),
    "ernie.layers.17.self_attn.qkv_proj.weight": (1024, (16 + 2 * 2) * 128),
    "ernie.layers.3.self_attn.o_proj.weight": (2048, 1024),
    "ernie.layers.3.post_attention_layernorm.weight": (1024,),
    "ernie.layers.3.mlp.up_gate_proj.weight": (1024, 6144),
    "ernie.layers.3.mlp.down_proj.weight": (3072, 1024),
    "ernie.norm.weight": (1024,),
}


def test_shapes_and_parameters_of_the_published_model():
    table = tensors(parse_config(PUBLISHED))
    shapes = {tensor.paddle: tensor.shape for tensor in table}
    assert shapes.items() >= PADDLE_SHAPES.items() and len(shapes) == 2 + 18 * 6
    counts = [sum(int(np.prod(shape)) for tensor in table for shape in tensor.shapes(layout).values()) for layout in ("hf", "paddle")]
    assert counts == [360_748_032, 360_748_032]


@pytest.mark.parametrize("changes", [{}, {"use_bias": True}, {"tie_word_embeddings": False}, {"num_hidden_layers": 1, "use_bias": True}])
def test_names_and_shapes_of_both_layouts(changes):
    config = {**TINY, **changes}
    hf = hf_tensors(config)
    table = tensors(parse_config(config))
    for layout, made in (("hf", hf), ("paddle", paddle_tensors(hf, config))):
        assert {name: shape for tensor in table for name, shape in tensor.shapes(layout).items()} == {k: v.shape for k, v in made.items()}


def test_a_paddle_linear_computes_what_three_transformers_linears_do():
    """Paddle: x @ W, then split Q‖K‖V; transformers: x @ Wᵀ each. Gate comes before up."""
    config = {**TINY, "use_bias": True}
    hf = hf_tensors(config, dtype=np.float64)
    paddle = paddle_tensors(hf, config)
    x = np.random.default_rng(1).standard_normal((5, 16))
    cases = {
        "self_attn.qkv_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "mlp.up_gate_proj": ["mlp.gate_proj", "mlp.up_proj"],
    }
    for tensor in tensors(parse_config(config)):
        name = tensor.paddle.removeprefix("ernie.layers.1.").removesuffix(".weight")
        if name in cases:
            joined = x @ paddle[tensor.paddle] + paddle[tensor.paddle.replace("weight", "bias")]
            for part, short in zip(tensor.parts, cases[name], strict=True):
                assert part.name == f"model.layers.1.{short}.weight"
                alone = x @ hf[part.name].T + hf[part.name.replace("weight", "bias")]
                np.testing.assert_allclose(joined[:, part.first_row : part.first_row + part.shape[0]], alone, rtol=1e-12)


def test_layout_comes_from_the_tensors_not_the_folder(tmp_path):
    assert layout_of(write_checkpoint(tmp_path / "ERNIE-4.5-Paddle", "hf")) == "hf"
    assert layout_of(write_checkpoint(tmp_path / "ERNIE-4.5-PT", "paddle")) == "paddle"
    assert layout_of(tmp_path / "ERNIE-4.5-PT" / "model.safetensors") == "paddle"


@pytest.mark.parametrize("names, said", [(["bert.x"], "bert.x"), (["model.a", "ernie.a"], "both layouts"), ([], "no tensor")])
def test_neither_layout(names, said, tmp_path):
    write(tmp_path / "model.safetensors", {name: np.zeros(1, np.float32) for name in names})
    with pytest.raises(InputError, match=said):
        layout_of(tmp_path)
