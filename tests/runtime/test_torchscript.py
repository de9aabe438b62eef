"""The TorchScript backend against the eager modules, and against files that are not what they say."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torchscript_models import Cnn, module, mutated, rewritten, save

from ernie_cli.errors import ErnieError, InputError, MissingError, UnsupportedError, UsageError
from ernie_cli.model import Model
from ernie_cli.runtime.graphs import GraphSession, TensorSpec, open_graph
from ernie_cli.torchscript.arrays import flatten, to_array, to_tensor

KINDS = ("mlp", "cnn", "cnn_traced", "cnn_frozen", "lstm", "flow", "mixed", "half", "brain", "unused", "bert", "vit")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("torchscript")
    return lambda name: folder / f"{name}.pt" if (folder / f"{name}.pt").exists() else save(name, folder / f"{name}.pt")


def opened(file: Path) -> GraphSession:
    return open_graph(Model.open(file), device="cpu")


def fed(session: GraphSession, name: str) -> dict[str, np.ndarray]:
    return {spec.name: to_array(tensor) for spec, tensor in zip(session.inputs, module(name)[1], strict=True)}


@pytest.mark.parametrize("name", KINDS)
def test_it_computes_what_the_eager_module_computes(saved: Callable[[str], Path], name: str) -> None:
    session, (eager, inputs) = opened(saved(name)), module(name)
    results = session.run(fed(session, name))
    with torch.no_grad():
        expected = dict(flatten(dict(got) if hasattr(got := eager(*inputs), "keys") else got))
    assert list(results) == [spec.name for spec in session.outputs] == list(expected)
    for key, array in results.items():
        assert array.dtype == to_array(expected[key]).dtype
        np.testing.assert_allclose(array.astype(float), to_array(expected[key]).astype(float), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_steps_end_in_the_outputs_and_name_the_weights(saved: Callable[[str], Path], name: str) -> None:
    session = opened(saved(name))
    results = session.run(fed(session, name))
    steps = {step.name: step for step in session.steps(fed(session, name))}
    for key in results:
        np.testing.assert_array_equal(steps[key].value, results[key])
    assert all(step.operator.count("::") == 1 for step in steps.values())
    if name == "mlp":
        assert [(step.operator, step.inputs[1:]) for step in steps.values()] == [
            ("aten::linear", ("fc1.weight", "fc1.bias")),
            ("aten::tanh", ()),
            ("aten::linear", ("fc2.weight", "fc2.bias")),
        ]
        assert next(iter(steps.values())).inputs[0] == "x"


def test_a_value_overwritten_in_place_is_shown_as_it_was(saved: Callable[[str], Path]) -> None:
    session, net = opened(saved("cnn")), module("cnn")[0]
    feeds = fed(session, "cnn")
    normed = next(step.value for step in session.steps(feeds) if step.operator == "aten::batch_norm")
    assert isinstance(net, Cnn) and normed is not None
    with torch.no_grad():
        np.testing.assert_allclose(normed, net.b1(net.c1(to_tensor(feeds["x"]))).numpy(), rtol=1e-5, atol=1e-6)
    assert normed.min() < 0  # relu_ wrote over it afterwards


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("mlp", [TensorSpec("x", "float32", ("batch", 8))]),
        ("cnn", [TensorSpec("x", "float32", ("batch", 3, "height", "width"))]),
        ("cnn_frozen", [TensorSpec("x", "float32", ("batch", 3, "height", "width"))]),
        ("cnn_traced", [TensorSpec("x", "float32", ("batch", 3, 24, 24))]),
        ("lstm", [TensorSpec("ids", "int64", ("batch", "length"))]),
        ("mixed", [TensorSpec("ids", "int64", ("batch", 5)), TensorSpec("mask", "bool", ("batch", 5))]),
        ("strange", [TensorSpec("x", "", None)]),
    ],
)
def test_inputs_are_found_in_the_trace_or_guessed_from_the_graph(saved: Callable[[str], Path], name: str, inputs: list[TensorSpec]) -> None:
    assert list(opened(saved(name)).inputs) == inputs


def test_bfloat16_goes_in_and_comes_out(saved: Callable[[str], Path]) -> None:
    result = opened(saved("brain")).run({"x": np.ones((1, 8), ml_dtypes.bfloat16)})
    assert result["output"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "no array for `x`"),
        ({"x": np.ones((1, 8), np.float32), "z": np.ones(1)}, "`z` is no input"),
        ({"x": np.ones((1, 9), np.float32)}, "does not run with x float32"),
        ({"x": np.ones((1, 8), np.int64)}, "does not run with x int64"),
    ],
)
def test_wrong_feeds_are_a_usage_error(saved: Callable[[str], Path], feeds: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        opened(saved("mlp")).run(feeds)


@pytest.mark.parametrize(("device", "error"), [("tpu", UsageError), ("cuda:x", UsageError), ("cuda:99", MissingError)])
def test_devices_that_are_not_here(saved: Callable[[str], Path], device: str, error: type[ErnieError]) -> None:
    with pytest.raises(error):
        open_graph(Model.open(saved("mlp")), device=device)


def test_arguments_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    class Counted(torch.nn.Module):
        def forward(self, x: torch.Tensor, times: int) -> torch.Tensor:
            return x * times

    torch.jit.script(Counted()).save(str(tmp_path / "counted.pt"))
    with pytest.raises(UnsupportedError, match="`times` of forward is int"):
        opened(tmp_path / "counted.pt")


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran-the-pickle",)


def _not_torchscript(folder: Path, content: bytes) -> dict[str, bytes | Callable[[Path], None]]:
    net = torch.nn.Linear(2, 2)
    code = zipfile.ZipFile(folder / "good.pt").read("good/code/__torch__/torchscript_models.py").decode()
    body = "    return "
    deep = {name: code.replace(body, f"    zz = {text}\n{body}", 1).encode() for name, text in _DEEP.items()}
    return {
        "a pickle": pickle.dumps(_Bomb()),
        "an old pickle": pickle.dumps(_Bomb(), protocol=0),
        "a state_dict": lambda file: torch.save(net.state_dict(), file),
        "an old state_dict": lambda file: torch.save(net.state_dict(), file, _use_new_zipfile_serialization=False),
        "a whole pickled module": lambda file: torch.save(net, file),
        "nothing": b"",
        "text": b"import torch\n" * 50,
        "a zip of another kind": rewritten(content, {"constants.pkl": None}),
        "half of it": content[: len(content) // 2],
        "a bomb": rewritten(content, {"constants.pkl": pickle.dumps(_Bomb())}),
        "weights missing": rewritten(content, {"data/0": None}),
        "weights too short": rewritten(content, {"data/0": b"1234"}),
        "a weight that changed": _flipped(content, "data/0"),
        "code that opens files": rewritten(content, {"models.py": code.replace("torch.tanh(", "torch.save(").encode()}),
        "definitions in a row": rewritten(content, {"models.py": (code + _chain(20_000)).encode()}),
        **{f"{name}, deep": rewritten(content, {"models.py": text}) for name, text in deep.items()},
    }


#: Each ended the process in torch's parser (torch 2.13) before source.py looked.
_DEEP = {
    "brackets": "(" * 50_000 + "1" + ")" * 50_000,
    "sums": " + ".join(["1"] * 50_000),
    "subscripts": "x" + "[0]" * 50_000,
    "types": "annotate(" + "List[" * 50_000 + "int" + "]" * 50_000 + ", [])",
    "negations": "not " * 50_000 + "True",
}


def _chain(count: int) -> str:
    return "".join(f"def f{n}(x: Tensor) -> Tensor:\n  return __torch__.torchscript_models.f{n + 1}(x)\n" for n in range(count))


def _flipped(content: bytes, ending: str) -> bytes:
    """One bit of a record's data, its checksum left as it was."""
    with zipfile.ZipFile(__import__("io").BytesIO(content)) as archive:
        record = archive.read(next(name for name in archive.namelist() if name.endswith(ending)))
    at = content.index(record)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_files_that_are_no_torchscript_are_refused_and_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = save("mlp", tmp_path / "good.pt").read_bytes()
    for name, made in _not_torchscript(tmp_path, content).items():
        file = tmp_path / "bad.pt"
        file.unlink(missing_ok=True)
        made(file) if callable(made) else file.write_bytes(made)
        with pytest.raises(InputError) as caught:
            opened(file)
        assert caught.value.hint, name
        assert "\n" not in caught.value.message, name
        if "pickle" in name or "state_dict" in name:
            assert "torch.jit.script" in caught.value.hint, name
    assert not (tmp_path / "ran-the-pickle").exists()


_FUZZ = """
import sys
from pathlib import Path
from ernie_cli.errors import ErnieError
from ernie_cli.model import Model
from ernie_cli.runtime.torchscript import open_graph
from torchscript_models import mutated
file, count = Path(sys.argv[1]), int(sys.argv[2])
sources = [path.read_bytes() for path in map(Path, sys.argv[3:])]
taken = refused = 0
for seed in range(count):
    print("seed", seed, flush=True)
    file.write_bytes(mutated(sources[seed % len(sources)], seed))
    try:
        open_graph(Model.open(file), "cpu")
        taken += 1
    except ErnieError as err:
        assert err.exit_code in (2, 3, 4) and err.hint and "\\n" not in err.message, err.message
        refused += 1
print("done", taken, refused)
"""


def test_400_damaged_files_end_in_an_error_or_a_session(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """In a process of their own: a crash of native code would show. Prints how many were taken and refused."""
    sources = [str(saved(name)) for name in ("mlp", "flow", "mixed", "lstm", "cnn_frozen")]
    command = [sys.executable, "-c", _FUZZ, str(tmp_path / "damaged.pt"), "400", *sources]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=480, env=environment, check=False)
    assert done.returncode == 0, f"{done.stdout[-200:]}\n{done.stderr[-2000:]}"
    taken, refused = map(int, done.stdout.splitlines()[-1].split()[1:])
    print(f"torchscript: {taken} mutated files opened, {refused} refused")
    assert taken + refused == 400
    assert refused > 100


def test_mutations_are_mutations(saved: Callable[[str], Path]) -> None:
    content = saved("mlp").read_bytes()
    assert sum(mutated(content, seed) != content for seed in range(50)) > 40
