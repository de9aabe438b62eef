"""Scales: measured once, kept in a file that people read and edit, taken as they are where given, never from a broken file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ernie_cli.errors import InputError, UsageError
from ernie_cli.model import Model
from ernie_cli.quant.calibrate import scales
from ernie_cli.quant.calibrate.data import Data, open_data
from ernie_cli.quant.calibrate.scales import Scales, activation_scales, graph_digest, read_scales, write_scales
from ernie_cli.quant.options import Options

NAMES = ["x", "h", "zero"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ERNIE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scales"


def save(folder: Path, dtype: type = np.float32, weight: float = 2.0, outside: bool = False, batch: int | str = "N") -> Model:
    """h = x · weight, zero = h · 0."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("Mul", ["x", "w"], ["h"], "h"), helper.make_node("Mul", ["h", "z"], ["zero"], "zero")]
    constants = [numpy_helper.from_array(np.full(300, value, dtype), name) for name, value in (("w", weight), ("z", 0))]
    given = [helper.make_tensor_value_info("x", kind, [batch, 300])]
    made = [helper.make_tensor_value_info("zero", kind, None)]
    shown = [helper.make_tensor_value_info("h", kind, [batch, 300])]
    graph = helper.make_graph(nodes, "g", given, made, constants, value_info=shown)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(exist_ok=True)
    more = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0} if outside else {}
    onnx.save_model(proto, str(folder / "model.onnx"), **more)
    return Model.open(folder)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return save(tmp_path / "model")


def data(model: Model, peak: float = 127.0) -> Data:
    file = model.folder.parent / f"data{peak}.npz"
    np.savez(file, x=(np.linspace(-1, 1, 1200).reshape(4, 300) * peak).astype(np.float32))
    return open_data(str(file), model, Options())


def test_scales_are_thresholds_over_the_largest_code(model):
    found = activation_scales(model, NAMES, "int8", data(model), Options(observer="minmax"))
    assert found == {"x": 1.0, "h": 2.0, "zero": 1.0}
    found = activation_scales(model, NAMES, "fp8", data(model, 448.0), Options(observer="minmax"))
    assert found == {"x": 1.0, "h": 2.0, "zero": 1.0}


@pytest.mark.parametrize("observer", ["minmax", "percentile", "percentile:99", "mse", "entropy"])
def test_every_observer_scales(model, observer):
    found = activation_scales(model, ["x", "x", "h"], "int8", data(model), Options(observer=observer))
    assert list(found) == ["x", "h"] and found["h"] == pytest.approx(2 * found["x"], rel=1e-3)


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse", "entropy"])
def test_batches_change_no_bit(tmp_path, observer):
    """The same twelve rows one, three and twelve at a time."""
    rows = np.random.default_rng(0).laplace(size=(12, 300)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    np.savez(tmp_path / "turned.npz", x=rows[::-1])
    found = []
    for number, batch in enumerate(("N", 3, 12, 3)):
        model = save(tmp_path / f"model{number}", batch=batch)
        those = open_data(str(tmp_path / ("turned.npz" if number == 3 else "rows.npz")), model, Options())
        found.append(activation_scales(model, NAMES, "int8", those, Options(observer=observer)))
    assert found[1:] == found[:1] * 3


# --- the cache --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch) -> list[list[str]]:
    """Which names were measured, call by call. The real measuring goes on."""
    calls: list[list[str]] = []
    real = scales._measured

    def note(model, names, *rest):
        calls.append(list(names))
        return real(model, names, *rest)

    monkeypatch.setattr(scales, "_measured", note)
    return calls


def test_a_second_time_nothing_is_measured_but_what_is_new(model, measured, cache):
    first = activation_scales(model, ["x"], "int8", data(model), Options())
    assert activation_scales(model, ["x"], "int8", data(model), Options()) == first
    both = activation_scales(model, ["x", "h"], "int8", data(model), Options())
    assert measured == [["x"], ["h"]] and both["x"] == first["x"] and len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "other",
    [
        lambda model: (model, "fp8", data(model), Options()),
        lambda model: (model, "int8", data(model, 5.0), Options()),
        lambda model: (model, "int8", data(model), Options(observer="minmax")),
        lambda model: (save(model.folder.parent / "other", weight=3.0), "int8", data(model), Options()),
    ],
    ids=["kind", "data", "observer", "weights"],
)
def test_what_matters_is_measured_again(model, measured, other):
    activation_scales(model, ["h"], "int8", data(model), Options())
    which, kind, those, options = other(model)
    activation_scales(which, ["h"], kind, those, options)
    assert len(measured) == 2


@pytest.mark.parametrize("outside", [False, True])
def test_a_copy_of_the_model_is_the_same_model(tmp_path, outside):
    model = save(tmp_path / "one", outside=outside)
    shutil.copytree(model.folder, tmp_path / "two")
    assert graph_digest(Model.open(tmp_path / "two")) == graph_digest(model)
    assert graph_digest(save(tmp_path / "three", weight=1.0, outside=outside)) != graph_digest(model)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kind": "int8"}', b'{"kind": "int8", "scales": {"x": -1}}', bytes(range(256))])
def test_a_broken_cache_is_measured_again_and_mended(model, measured, cache, content):
    wanted = activation_scales(model, ["x"], "int8", data(model), Options())
    (file,) = cache.iterdir()
    file.write_bytes(content)
    assert activation_scales(model, ["x"], "int8", data(model), Options()) == wanted
    assert len(measured) == 2 and read_scales(file).scales == wanted


def test_a_cache_that_cannot_be_written_is_done_without(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ERNIE_CACHE", str(tmp_path / "file"))
    assert activation_scales(model, ["x"], "int8", data(model), Options(observer="minmax")) == {"x": 1.0}


def test_the_file_is_readable_and_says_what_it_is(model, cache):
    those = data(model)
    activation_scales(model, NAMES, "int8", those, Options(observer="minmax"))
    (file,) = cache.iterdir()
    content = json.loads(file.read_text())
    assert content["scales"] == {"x": 1.0, "h": 2.0, "zero": 1.0}
    assert (content["kind"], content["observer"]) == ("int8", "minmax")
    assert (content["graph"], content["data"], content["said"]) == (graph_digest(model), those.digest, those.said)
    assert {"ernie", "onnxruntime"} <= set(content["versions"])
    assert '    "h": 2.0,\n' in file.read_text()


# --- a person's file --------------------------------------------------------------------------------------------------------


def given(path: Path, content: object) -> Options:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Options(scales=str(path))


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "int8", "scales": {"x": 0.5, "h": 7, "more": 1}},
        {"x": 0.5, "h": 7.0},
        {"scheme": "int8", "scales": {"type": "int8", "observer": "mse", "values": {"x": 0.5, "h": 7.0}}},
    ],
    ids=["as written", "plain", "a report"],
)
def test_a_given_file_is_taken_as_it_is(model, tmp_path, measured, content):
    found = activation_scales(model, ["h", "x"], "int8", None, given(tmp_path / "s.json", content))
    assert found == {"h": 7.0, "x": 0.5} and not measured


def test_what_was_written_can_be_edited_and_given_back(model, tmp_path, cache, capsys):
    activation_scales(model, ["x", "h"], "int8", data(model), Options(observer="minmax"))
    (file,) = cache.iterdir()
    options = given(tmp_path / "s.json", file.read_text().replace('"h": 2.0', '"h": 1.5'))
    assert activation_scales(model, ["x", "h"], "int8", data(model), options) == {"x": 1.0, "h": 1.5}
    assert "another graph" not in capsys.readouterr().err
    activation_scales(save(tmp_path / "other", weight=3.0), ["x"], "int8", data(model), options)
    assert "another graph" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ({"x": 1.0}, UsageError, ["no scale for `h`, `zero`"]),
        ({"kind": "fp8", "scales": {"x": 1.0, "h": 1.0, "zero": 1.0}}, UsageError, ["for fp8, not int8"]),
        ({}, InputError, ["no scales"]),
        ({"kind": "int8", "scales": {}}, InputError, ["no scales"]),
        ({"x": 0.0}, InputError, ["`x` is 0.0", "above 0"]),
        ({"x": "1"}, InputError, ["`x` is '1'"]),
        ({"x": True}, InputError, ["`x` is True"]),
        ('{"x": NaN}', InputError, ["`x` is nan"]),
        ('{"x": Infinity}', InputError, ["`x` is inf"]),
        ("[1]", InputError, ["JSON object"]),
        ("{", InputError, ["not valid JSON"]),
    ],
)
def test_a_file_that_will_not_do_is_refused(model, tmp_path, content, kind, words):
    with pytest.raises(kind) as err:
        activation_scales(model, NAMES, "int8", data(model), given(tmp_path / "s.json", content))
    said = f"{err.value.message} {err.value.hint}"
    assert all(word in said for word in words) and "\n" not in said


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "s.json"
    write_scales(path, Scales({"x": 0.1 + 0.2}, "int8"))
    assert read_scales(path) == Scales({"x": 0.1 + 0.2}, "int8")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_scales(path, Scales({"x": object()}))  # type: ignore[dict-item]
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_neither_scales_nor_data_is_refused(model):
    with pytest.raises(UsageError) as err:
        activation_scales(model, NAMES, "int8", None, Options())
    assert "--data" in err.value.hint


# --- values that no scale fits ------------------------------------------------------------------------------------------------


def test_a_value_that_is_not_finite_is_named(tmp_path):
    model = save(tmp_path / "model", weight=3e38)
    with pytest.raises(InputError, match="`h` is NaN or infinite in"):
        activation_scales(model, ["h"], "int8", data(model), Options())


def test_tiny_halves_get_a_scale_that_halves_can_hold(tmp_path):
    model = save(tmp_path / "model", np.float16, 2.0)
    found = activation_scales(model, NAMES, "int8", data(model, 1e-6), Options(observer="minmax"))
    assert all(np.float16(scale) > 0 for scale in found.values())
