"""`ernie inspect` of TorchScript files: what they say, without torch, and what they must not do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchscript_models import module, mutated, rewritten, save

from ernie_cli.app import main
from ernie_cli.errors import ErnieError, InputError
from ernie_cli.inspect import look


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("torchscript")
    return lambda name: folder / f"{name}.pt" if (folder / f"{name}.pt").exists() else save(name, folder / f"{name}.pt")


@pytest.mark.parametrize(
    ("name", "kind", "inputs", "operator"),
    [
        ("mlp", "scripted", [("x", "Tensor", None)], "aten::tanh"),
        ("cnn_traced", "traced", [("x", "float32", [1, 3, 24, 24])], "aten::_convolution"),
        ("flow", "scripted", [("x", "Tensor", None), ("scale", "Optional[Tensor]", None), ("times", "int", None)], "aten::linear"),
        ("mixed", "traced", [("ids", "int64", [2, 5]), ("mask", "bool", [2, 5])], "aten::masked_fill"),
        ("bert", "traced", [("input_ids", "int64", [1, 7]), ("attention_mask", "int64", [1, 7])], "aten::scaled_dot_product_attention"),
    ],
)
def test_what_a_file_tells(
    saved: Callable[[str], Path], name: str, kind: str, inputs: list[tuple[str, str, object]], operator: str
) -> None:
    found = look(saved(name))
    assert (found["kind"], found["problems"]) == (kind, [])
    assert [(value["name"], value["dtype"], value["shape"]) for value in found["inputs"]] == inputs
    assert operator in found["ops"] and "forward" in found["methods"]
    parameters = {key: value for key, value in module(name)[0].state_dict().items() if value.is_floating_point()}
    assert found["parameters"] == sum(value.numel() for value in parameters.values())
    shapes = {tensor["name"]: tuple(tensor["shape"]) for tensor in found["tensors"]}
    assert {key: shapes[key] for key in parameters} == {key: tuple(value.shape) for key, value in parameters.items()}


def test_frozen_weights_count(saved: Callable[[str], Path]) -> None:
    frozen = look(saved("cnn_frozen"))
    assert {tensor["name"].split(".")[0] for tensor in frozen["tensors"]} == {"CONSTANTS"}
    assert frozen["parameters"] > 0


def test_half_precision_is_said(saved: Callable[[str], Path]) -> None:
    assert look(saved("half"))["bytes_by_dtype"] == {"fp16": 2 * (8 * 16 + 16 + 16 * 4 + 4)}


def test_it_needs_no_torch(saved: Callable[[str], Path]) -> None:
    code = "import sys; sys.modules['torch'] = None; from ernie_cli.app import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", "--json", str(saved("bert"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "traced"


def test_it_is_shown_to_people(saved: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--tensors", str(saved("cnn_traced"))]) == 0
    shown = capsys.readouterr().out
    assert "torch.jit.trace" in shown and "c1.weight" in shown and "[1, 3, 24, 24]" in shown


@pytest.mark.parametrize("changed", [{"data/0": None}, {"data/0": b"12"}])
def test_missing_weights_are_problems(
    saved: Callable[[str], Path], tmp_path: Path, changed: dict[str, bytes | None], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.pt").write_bytes(rewritten(saved("mlp").read_bytes(), changed))
    assert len(look(tmp_path / "bad.pt")["problems"]) == 1
    assert main(["inspect", str(tmp_path / "bad.pt")]) == 3
    assert "fc" in capsys.readouterr().err


def test_a_state_dict_is_refused_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    assert main(["inspect", str(tmp_path / "weights.pt")]) == 3
    said = capsys.readouterr().err
    assert "torch.jit.script(module).save" in said and "safetensors" in said


def test_a_zip_bomb_is_not_unpacked(saved: Callable[[str], Path], tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.pt"
    bomb.write_bytes(saved("mlp").read_bytes())
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("mlp/code/more.py", "w", force_zip64=True) as record:
        for _ in range(300):
            record.write(bytes(1 << 20))
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="unpack to"):
        look(bomb)


def test_400_damaged_files_end_in_facts_or_an_error(saved: Callable[[str], Path], tmp_path: Path) -> None:
    sources = [saved(name).read_bytes() for name in ("mlp", "flow", "mixed", "lstm", "cnn_frozen")]
    file, read, refused = tmp_path / "mutated.pt", 0, 0
    for seed in range(1000, 1400):
        file.write_bytes(mutated(sources[seed % len(sources)], seed))
        start = time.perf_counter()
        try:
            look(file)
            read += 1
        except ErnieError as err:
            assert err.exit_code == 3 and err.hint and "\n" not in err.message
            refused += 1
        assert time.perf_counter() - start < 20, seed  # no hang
    print(f"torchscript: {read + refused} mutated files inspected")
    assert refused > 100
