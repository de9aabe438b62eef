"""Deliberately wrong converters: always caught, and the tensor that is named is the one they got wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import onnx
import parity_nets as nets
import pytest
from parity_doubles import attribute, both, drop_bias, edited, halved, nudge, omit, rename, swap, swap_inputs, transpose

from ernie_cli import named, route
from ernie_cli.app import main
from ernie_cli.model import Model, write_manifest
from ernie_cli.parity import graphs

#: net, mistake, the tensor that it makes wrong first, what is said of the weights ("" where they are right).
WRONG = [
    (nets.mlp, swap("fc1.weight", "fc2.weight"), "fc1", "values of `fc2.weight` in the place of `fc1.weight`"),
    (nets.mlp, swap("fc1.bias", "fc2.bias"), "fc1", "values of `fc2.bias` in the place of `fc1.bias`"),
    (nets.mlp, drop_bias("fc1.bias"), "fc1", "`fc1.bias` is nowhere"),
    (nets.mlp, drop_bias("fc2.bias"), "fc2", "`fc2.bias` is nowhere"),
    (nets.mlp, drop_bias("fc3.bias"), "y", "`fc3.bias` is nowhere"),
    (nets.mlp, transpose("fc1.weight"), "fc1", "`fc1.weight` is transposed"),
    (nets.mlp, transpose("fc2.weight"), "fc2.matmul", "`fc2.weight` is transposed"),
    (nets.mlp, omit("relu1"), "relu1", ""),
    (nets.mlp, omit("tanh2"), "tanh2", ""),
    (nets.mlp, swap_inputs("difference"), "difference", ""),
    (nets.cnn, swap("conv2.weight", "conv3.weight"), "conv2", "values of `conv3.weight` in the place of `conv2.weight`"),
    (nets.cnn, swap("bn2.scale", "bn3.scale"), "bn2", "values of `bn3.scale` in the place of `bn2.scale`"),
    (nets.cnn, swap("bn2.mean", "bn2.bias"), "bn2", "values of `bn2.mean` in the place of `bn2.bias`"),
    (nets.cnn, drop_bias("logits.bias"), "logits", "`logits.bias` is nowhere"),
    (nets.cnn, nudge("bn1.bias", 3, 1e-2), "bn1", "`bn1.bias` has other values"),
    (nets.cnn, attribute("bn2", epsilon=1e-3), "bn2", ""),
    (nets.cnn, attribute("pool1", count_include_pad=0), "pool1", ""),
    (nets.cnn, attribute("pool2", strides=[1, 1]), "pool2", ""),
    (nets.cnn, omit("relu3"), "relu3", ""),
    (nets.cnn, attribute("probabilities", axis=0), "probabilities", ""),
    (nets.transformer, swap("q.weight", "k.weight"), "q.matmul", "values of `k.weight` in the place of `q.weight`"),
    (nets.transformer, swap("v.weight", "o.weight"), "v.matmul", "values of `o.weight` in the place of `v.weight`"),
    (nets.transformer, swap("ln1.weight", "ln2.weight"), "ln1", "values of `ln2.weight` in the place of `ln1.weight`"),
    (nets.transformer, drop_bias("up.bias"), "up", "`up.bias` is nowhere"),
    (nets.transformer, drop_bias("q.bias"), "q", "`q.bias` is nowhere"),
    (nets.transformer, transpose("v.weight"), "v.matmul", "`v.weight` is transposed"),
    (nets.transformer, transpose("o.weight"), "o.matmul", "`o.weight` is transposed"),
    (nets.transformer, attribute("ln2", epsilon=1e-2), "ln2", ""),
    (nets.transformer, attribute("attention", axis=2), "attention", ""),
    (nets.transformer, omit("scaled"), "scaled", ""),
    (nets.transformer, swap_inputs("mask.shifted"), "mask.shifted", ""),
    (nets.lstm, drop_bias("lstm.B"), "lstm.y", "`lstm.B` is nowhere"),
    (nets.lstm, swap("lstm.W", "lstm.R"), "lstm.y", "values of `lstm.R` in the place of `lstm.W`"),
    (nets.lstm, drop_bias("y.bias"), "y", "`y.bias` is nowhere"),
    (nets.lstm, attribute("mean", axes=[2]), "mean", ""),
    (nets.lstm, attribute("turned", perm=[2, 0, 3, 1]), "turned", ""),
]
NAMES = [f"{net.__name__}-{tensor}-{number}" for number, (net, _, tensor, _) in enumerate(WRONG)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nets")
    return {net.__name__: net(folder / net.__name__ / "model.onnx") for net in (nets.mlp, nets.cnn, nets.transformer, nets.lstm)}


def caught(source: Path, made: Path, name: str = "x → y") -> dict[str, object]:
    with pytest.raises(graphs.ParityError) as error:
        graphs.check(Model.open(source), Model.open(made), route.Options(), name=name)
    assert error.value.exit_code == 6 and "\n" not in error.value.message
    found = error.value.record["first_difference"]
    assert f"`{found['tensor']}` ({found['operator']}" in error.value.message
    return found


@pytest.mark.parametrize(("net", "mistake", "tensor", "says"), WRONG, ids=NAMES)
def test_the_right_tensor_is_named(net, mistake, tensor, says, saved, tmp_path) -> None:
    found = caught(saved[net.__name__], edited(saved[net.__name__], tmp_path / "model.onnx", mistake))
    assert found["tensor"] == tensor
    assert says in "; ".join(found["findings"]) and bool(says) == bool(found["findings"])


@pytest.mark.parametrize(("net", "mistake", "tensor", "says"), WRONG[:-1:2], ids=NAMES[:-1:2])
def test_without_common_names_too(net, mistake, tensor, says, saved, tmp_path) -> None:
    """Most converters rename every value. (A wrong order of axes is then no longer told from another layout, hence all but one.)"""
    found = caught(saved[net.__name__], edited(saved[net.__name__], tmp_path / "model.onnx", rename(mistake)))
    assert found["tensor"] == tensor
    assert says in "; ".join(found["findings"])


def test_a_wrong_order_of_axes_without_names_is_mentioned(saved, tmp_path) -> None:
    found = caught(saved["lstm"], edited(saved["lstm"], tmp_path / "model.onnx", rename(WRONG[-1][1])))
    assert found["findings"] == ["its input `turned` has its axes in another order in the target"]


def test_what_changes_nothing_passes(saved, tmp_path) -> None:
    """A bias of the keys shifts all scores of a query alike: softmax takes it out again."""
    made = edited(saved["transformer"], tmp_path / "model.onnx", drop_bias("k.bias"))
    assert graphs.check(Model.open(saved["transformer"]), Model.open(made), route.Options(), name="x")["passed"]


def test_among_the_rounding_of_float16(saved, tmp_path) -> None:
    right = edited(saved["mlp"], tmp_path / "right.onnx", halved)
    record = graphs.check(Model.open(saved["mlp"]), Model.open(right), route.Options(), name="x")
    assert record["passed"] and record["limits"]["precision"] == "fp16" and record["outputs"]["y"]["max_rel"] > 1e-5
    for mistake, tensor in (
        (swap("fc1.weight", "fc2.weight"), "fc1"),
        (drop_bias("fc2.bias"), "fc2"),
        (transpose("fc2.weight"), "fc2.matmul"),
    ):
        assert caught(saved["mlp"], edited(saved["mlp"], tmp_path / "wrong.onnx", both(mistake, halved)))["tensor"] == tensor


def test_our_own_decoder(tmp_path) -> None:
    options = route.Options(kv_cache="growing", verify=False)
    made = route.convert(named.resolve("ernie-4.5-nano"), to="onnx", out=tmp_path / "nano", options=options)
    own, other = "model.layers.2.self_attn.k_proj.weight", "model.layers.2.self_attn.v_proj.weight"
    onnx.save(onnx.load(made.main_file()), tmp_path / "whole.onnx")
    found = caught(tmp_path / "whole.onnx", edited(tmp_path / "whole.onnx", tmp_path / "bad.onnx", swap(own, other)))
    assert found["tensor"] == own.removesuffix(".weight")
    assert f"values of `{other}` in the place of `{own}`" in found["findings"][0]


class Double(SimpleNamespace):
    """An edge onnx → torchscript that makes a mistake (and keeps the format: what matters is that it is checked)."""

    NEEDS = ()

    def convert(self, model: Model, out: Path, options: route.Options) -> Model:
        edited(model.main_file(), out / "model.onnx", self.mistake)
        return write_manifest(out, format="onnx", main="model.onnx", files={})

    def output_bytes(self, model: Model, options: route.Options) -> int:
        return 0


@pytest.mark.parametrize(
    ("mistake", "tensor"),
    [(swap("fc1.weight", "fc2.weight"), "fc1"), (drop_bias("fc2.bias"), "fc2"), (transpose("fc2.weight"), "fc2.matmul")],
)
def test_at_the_command_line(mistake, tensor, saved, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(route, "edges", lambda: {"onnx_to_torchscript": ("onnx", "torchscript")})
    monkeypatch.setattr(route, "_load", lambda name: Double(mistake=mistake))
    out, report = tmp_path / "out", tmp_path / "report.json"
    assert main(["convert", str(saved["mlp"]), "--to", "torchscript", "-o", str(out), "--report", str(report)]) == 6
    said = capsys.readouterr().err
    assert "not the same model" in said and f"`{tensor}`" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json"]
    record = json.loads(report.read_text())["checks"][-1]
    assert record["passed"] is False and record["first_difference"]["tensor"] == tensor
    assert main(["convert", str(saved["mlp"]), "--to", "torchscript", "-o", str(out), "--keep-failed", "-q"]) == 6
    assert (tmp_path / "out.failed" / "model.onnx").is_file() and not out.exists()


TORCH = [number for number, (net, *_) in enumerate(WRONG) if net is nets.mlp or (net is nets.transformer and number % 4 == 0)]


@pytest.mark.parametrize(("net", "mistake", "tensor", "says"), [WRONG[n] for n in TORCH], ids=[NAMES[n] for n in TORCH])
def test_a_wrong_torchscript(net, mistake, tensor, says, saved, tmp_path) -> None:
    """The same mistakes on the way to another format: the module is made from the wrong graph."""
    from ernie_cli.torchscript import from_onnx

    (tmp_path / "made").mkdir()
    bad = Model.open(edited(saved[net.__name__], tmp_path / "bad.onnx", mistake))
    from_onnx.convert(bad, tmp_path / "made", route.Options())
    found = caught(saved[net.__name__], tmp_path / "made", "onnx → torchscript")
    assert found["tensor"] == tensor and says in "; ".join(found["findings"])


@pytest.mark.parametrize("mistake", ["swap", "bias", "transpose"])
def test_weights_mixed_up_inside_a_module(mistake, saved, tmp_path) -> None:
    """The converter is right, and whoever touched its module is not."""
    import torch

    from ernie_cli.torchscript import from_onnx

    (tmp_path / "made").mkdir()
    made = from_onnx.convert(Model.open(saved["mlp"]), tmp_path / "made", route.Options())
    module = torch.jit.load(str(made.main_file()))
    with torch.no_grad():
        weights = [tensor for tensor in module.buffers() if tuple(tensor.shape) == (16, 16)]
        biases = [tensor for tensor in module.buffers() if tuple(tensor.shape) == (16,)]
        if mistake == "swap":
            first, second = (tensor.clone() for tensor in weights)
            weights[0].copy_(second), weights[1].copy_(first)
        elif mistake == "bias":
            biases[0].zero_()
        else:
            weights[0].copy_(weights[0].T.clone())
    torch.jit.save(module, str(made.main_file()))
    found = caught(saved["mlp"], tmp_path / "made", "onnx → torchscript")
    expected = {
        "swap": "values of `fc2.weight` in the place of `fc1.weight`",
        "bias": "`fc1.bias` has other values",
        "transpose": "`fc1.weight` is transposed",
    }
    assert found["tensor"] == "fc1" and expected[mistake] in "; ".join(found["findings"])
