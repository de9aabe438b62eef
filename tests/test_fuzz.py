"""Valid files of every format, damaged more than 2,000 times by seed: an error of ours or a result, never a crash, a hang, a trace.

The public commands run in a worker process, so that a crash of a native library is seen as one. `ERNIE_FUZZ=20` runs twenty
times as many mutations with other seeds.
"""

from __future__ import annotations

import io
import json
import os
import random
import selectors
import shutil
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

#: What a command may end in: all documented codes but 1 (a bug) and 130 (Ctrl-C).
CODES = {0, 2, 3, 4, 5, 6, 7}
#: No command on a file of a few kilobytes takes this long: it hangs.
HANG_SECONDS = 120
MORE = int(os.environ.get("ERNIE_FUZZ", "1"))


class Worker:
    """A process that runs commands one after another; started again where one killed it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, words: list[str]) -> dict[str, Any]:
        if self.process is None or self.process.poll() is not None:
            script = Path(__file__).with_name("fuzz_worker.py")
            self.process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(HANG_SECONDS):
                self.close()
                return {"code": "hang", "error": ""}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"code": f"died: {self.process.wait()}", "error": ""}

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    one = Worker()
    yield one
    one.close()


# --- damage -------------------------------------------------------------------------------------------------------------


def flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def flip_head(data: bytes, rng: random.Random) -> bytes:
    return flip(data[:300], rng) + data[300:]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def cut(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 64) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[:end] + data[start:]


def lengthen(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randint(1, 100))


def large_number(data: bytes, rng: random.Random) -> bytes:
    """A length or count becomes an enormous one: as a varint, or as eight bytes."""
    start = rng.randrange(len(data))
    big = rng.choice(
        [b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", (1 << rng.randrange(63)).to_bytes(8, "little"), b"\x80\x80\x80\x80\x10"]
    )
    return data[:start] + big + data[start + rng.choice([1, len(big)]) :]


def digit(data: bytes, rng: random.Random) -> bytes:
    places = [index for index, byte in enumerate(data) if 48 <= byte <= 57] or [0]
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        out[rng.choice(places)] = rng.randrange(48, 58)
    return bytes(out)


def name(data: bytes, rng: random.Random) -> bytes:
    """A letter becomes another: an operator, attribute or value of another name."""
    places = [index for index, byte in enumerate(data) if 65 <= byte <= 122] or [0]
    out = bytearray(data)
    out[rng.choice(places)] = rng.randrange(65, 122)
    return bytes(out)


BYTES = [flip, flip_head, truncate, cut, repeat, lengthen, large_number, digit, name]
VALUES: list[Any] = [None, True, -1, 0, 1, 1 << 40, 1 << 70, -1.5, "", "x", "\ud800", [], [[]], {}, [1, -1, 1 << 50]]


def json_value(data: bytes, rng: random.Random) -> bytes:
    """Any value of a JSON document becomes any other, or goes."""
    document = json.loads(data)
    places: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        at = pending.pop()
        keys = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else []
        places += [(at, key) for key in keys]
        pending += [at[key] for key in keys]
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(places)
        if rng.random() < 0.3 and isinstance(holder, dict):
            holder.pop(key, None)
        elif isinstance(holder, dict) or key < len(holder):
            holder[key] = rng.choice(VALUES)
    return json.dumps(document).encode()


def protobuf_field(data: bytes, rng: random.Random) -> bytes:
    """Any field of an ONNX model becomes another of its kind, is doubled, or goes."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    messages: list[Any] = [model]
    for message in messages:  # grows while it is walked
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                messages += list(value) if hasattr(value, "add") else [value]
    for _ in range(rng.randint(1, 3)):
        message = rng.choice(messages)
        field, value = rng.choice(message.ListFields() or [(None, None)])
        if field is None or rng.random() < 0.2:
            message.Clear()
        elif rng.random() < 0.3:
            message.ClearField(field.name)
        elif hasattr(value, "append") or hasattr(value, "add"):
            value.extend([value[0]]) if rng.random() < 0.5 else value.pop()
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, rng.choice(["", "x", "y", "Relu", "Loop", "If", "\n", "../x", value * 2]))
        elif field.type == field.TYPE_BYTES:
            setattr(message, field.name, truncate(value or b"0", rng))
        elif field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64):
            setattr(message, field.name, rng.choice([-1, 0, 1, 7, 99, (1 << 31) - 1]))
    return bytes(model.SerializeToString())


def zip_member(data: bytes, rng: random.Random) -> bytes:
    """A file of an archive is damaged, renamed, doubled, compressed, or goes. The archive itself stays whole."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        victim, what = rng.choice(old.namelist()), rng.randrange(6)
        for member in old.namelist():
            content = old.read(member)
            if member == victim:
                if what == 0:
                    continue
                content = rng.choice(BYTES)(content, rng) if what < 3 and content else content
                member = rng.choice(["../x", "/etc/x", "a/" + member, member + "x"]) if what == 3 else member
                if what == 4:
                    new.writestr(member + ".again", content)
            new.writestr(member, content, zipfile.ZIP_DEFLATED if what == 5 and member == victim else zipfile.ZIP_STORED)
    return out.getvalue()


# --- running ------------------------------------------------------------------------------------------------------------


def fuzz(
    worker: Worker, place: Path, victims: dict[str, list[Callable[..., bytes]]], commands: list[list[str]], times: int, report: Any
) -> None:
    """Damage each file of `victims` (name → how) in turn, `times` in all, and run one of `commands` on the folder `place`/m."""
    folder = place / "m"
    whole = {file: (folder / file).read_bytes() for file in victims}
    for words in commands:
        answer = worker(words)
        assert answer["code"] == 0, (words, answer)
        _remove(place)
    wanted = sorted(str(path) for path in place.rglob("*"))
    codes: Counter[str] = Counter()
    choices = [(file, how) for file, ways in victims.items() for how in ways]
    problems: list[str] = []
    begun = time.monotonic()
    for number in range(times * MORE):
        rng = random.Random(number if MORE == 1 else number + 1_000_000)
        file, how = choices[number % len(choices)]
        (folder / file).write_bytes(how(whole[file], rng))
        words = commands[(number // len(choices)) % len(commands)]
        answer = worker(words)
        (folder / file).write_bytes(whole[file])
        problem = _problem(answer) if answer["code"] else ""
        if not answer["code"]:
            _remove(place)
        elif sorted(str(path) for path in place.rglob("*")) != wanted:
            _remove(place)
            problem = "something is left behind"
        if problem:
            problems.append(f"{problem}: {how.__name__} of {file}, seed {number}: ernie {' '.join(words)}: {answer}")
        codes[str(answer["code"])] += 1
    report(times * MORE, codes, time.monotonic() - begun)
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:12])


def _problem(answer: dict[str, Any]) -> str:
    """What a failing command did wrong in failing."""
    lines = answer["error"].strip().splitlines()
    if answer["code"] not in CODES:
        return f"exit {answer['code']}"
    if [line.partition(":")[0] for line in lines] != ["error", "hint"]:
        return "not one error and one hint"
    return "" if all(len(line) < 20_000 for line in lines) else "endless lines"


def _remove(place: Path) -> None:
    shutil.rmtree(place / "out", ignore_errors=True)


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[..., None]:
    def say(times: int, codes: Counter[str], seconds: float) -> None:
        with capsys.disabled():
            ends = ", ".join(f"{count} × exit {code}" for code, count in sorted(codes.items()))
            print(f"\n{request.node.name}: {times} mutations in {seconds:.0f} s: {ends}")

    return say


# --- the formats --------------------------------------------------------------------------------------------------------


def onnx_model(folder: Path, *, external: bool = False) -> Path:
    """A convolution, a branch, a function call and a recurrent layer: every kind of thing that a file can hold."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, node = np.random.default_rng(0), helper.make_node

    def branch(op: str) -> onnx.GraphProto:
        return helper.make_graph([node(op, ["h"], ["o"], op)], op, [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, ["n", 4])])

    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c"], ["p"], "pool"),
        node("Flatten", ["p"], ["h"], "flat"),
        node("If", ["yes"], ["i"], "if", then_branch=branch("Relu"), else_branch=branch("Neg")),
        node("double", ["i"], ["d"], "call", domain="local"),
        node("Gemm", ["d", "g"], ["y"], "gemm", transB=1),
    ]
    body = [node("Add", ["a", "a"], ["s"], "add")]
    function = helper.make_function("local", "double", ["a"], ["s"], body, [helper.make_opsetid("", 17)])
    constants = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "b": np.zeros(4, np.float32), "yes": np.array(True),
        "g": rng.normal(size=(2, 4)).astype(np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])], [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    proto = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=9)
    folder.mkdir(parents=True)
    onnx.save(proto, str(folder / "model.onnx"), save_as_external_data=external, location="w.bin", size_threshold=64)
    return folder


def torchscript_model(folder: Path) -> Path:
    """A small traced network."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    folder.mkdir(parents=True)
    with torch.no_grad():
        torch.jit.trace(net, torch.randn(1, 3, 8, 8)).save(str(folder / "model.pt"))
    return folder


def paddle_model(folder: Path, *, legacy: bool = False) -> Path:
    """A small Paddle program, in the newer or the older of its two forms."""
    paddle = pytest.importorskip("paddle", reason="Paddle programs are made by paddle")
    from contextlib import nullcontext

    nn = paddle.nn
    paddle.seed(0)
    net = nn.Sequential(nn.Conv2D(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(4, 2))
    net.eval()
    with paddle.pir_utils.OldIrGuard() if legacy else nullcontext():
        paddle.jit.save(net, str(folder / "model"), [paddle.static.InputSpec([None, 3, 8, 8], "float32", "x")])
    return folder


def commands(place: Path, to: str, *, check: bool = True) -> list[list[str]]:
    model, out = str(place / "m"), str(place / "out")
    found = [["inspect", model, "-q"], ["convert", model, "--to", to, "-o", out, "-q", "--dry-run"]]
    return [*found, ["convert", model, "--to", to, "-o", out, "-q", "--check"]] if check else found


@pytest.mark.parametrize("external", [False, True])
def test_onnx(external: bool, worker: Worker, tmp_path: Path, report: Any) -> None:
    onnx_model(tmp_path / "m", external=external)
    victims = {"model.onnx": [*BYTES, protobuf_field, protobuf_field], **({"w.bin": [truncate, lengthen]} if external else {})}
    fuzz(worker, tmp_path, victims, commands(tmp_path, "torchscript"), 400, report)


def test_torchscript(worker: Worker, tmp_path: Path, report: Any) -> None:
    torchscript_model(tmp_path / "m")
    fuzz(worker, tmp_path, {"model.pt": [*BYTES, zip_member, zip_member]}, commands(tmp_path, "onnx"), 330, report)


@pytest.mark.parametrize("legacy", [False, True], ids=["pir", "legacy"])
def test_paddle(legacy: bool, worker: Worker, tmp_path: Path, report: Any) -> None:
    paddle_model(tmp_path / "m", legacy=legacy)
    graph = {"model.pdmodel": BYTES} if legacy else {"model.json": [*BYTES, json_value, json_value]}
    fuzz(worker, tmp_path, {**graph, "model.pdiparams": BYTES}, commands(tmp_path, "onnx", check=False), 300, report)


def test_safetensors(worker: Worker, tmp_path: Path, report: Any) -> None:
    from tiny_checkpoint import make_checkpoint

    make_checkpoint(tmp_path / "m", num_hidden_layers=1, vocab_size=32)
    victims = {
        "model.safetensors": [flip_head, truncate, cut, large_number, digit, lengthen],
        "config.json": [*BYTES, json_value, json_value],
    }
    fuzz(worker, tmp_path, victims, commands(tmp_path, "onnx", check=False), 300, report)


def test_inputs(worker: Worker, tmp_path: Path, report: Any) -> None:
    onnx_model(tmp_path / "m")
    np.savez(tmp_path / "m" / "x.npz", x=np.zeros((1, 3, 8, 8), np.float32))
    out = str(tmp_path / "out")
    words = ["run", str(tmp_path / "m/model.onnx"), "--inputs", str(tmp_path / "m/x.npz"), "-o", out, "-q"]
    fuzz(worker, tmp_path, {"x.npz": [*BYTES, zip_member, zip_member]}, [words], 330, report)


@pytest.mark.parametrize(
    ("make", "file", "ways", "to", "times"),
    [
        (onnx_model, "model.onnx", [flip, name, digit, protobuf_field, protobuf_field], "torchscript", 40),
        (torchscript_model, "model.pt", [flip, zip_member, zip_member], "onnx", 24),
        (paddle_model, "model.json", [name, digit, json_value], "onnx", 6),
        (onnx_model, "model.onnx", [name, protobuf_field], "pdmodel", 6),
    ],
    ids=["onnx-torchscript", "torchscript-onnx", "pdmodel-onnx", "onnx-pdmodel"],
)
def test_whole_conversions(make: Any, file: str, ways: Any, to: str, times: int, worker: Worker, tmp_path: Path, report: Any) -> None:
    if to == "pdmodel":
        pytest.importorskip("paddle", reason="Paddle programs are made by paddle")
    make(tmp_path / "m")
    words = ["convert", str(tmp_path / "m"), "--to", to, "-o", str(tmp_path / "out"), "-q"]
    fuzz(worker, tmp_path, {file: ways}, [words], times, report)
