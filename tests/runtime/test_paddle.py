"""Paddle programs as a backend of graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from paddle_programs import feeds, programs

from ernie_cli.errors import InputError, UsageError
from ernie_cli.model import Model
from ernie_cli.pdmodel.child import Child, Crashed
from ernie_cli.runtime.graphs import open_graph


@pytest.mark.parametrize("name", ["pir/mlp", "pir/typed", "pir/lstm", "pir/detector", "legacy/shufflenet"])
def test_every_value_of_a_program_is_shown(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    session = open_graph(Model.open(programs() / name))
    given = feeds(session.inputs)
    outputs, steps = session.run(given), list(session.steps(given))
    session.close()
    assert list(outputs) == [spec.name for spec in session.outputs]
    assert [value.dtype.name for value in outputs.values()] == [spec.dtype for spec in session.outputs]
    values = [step.value for step in steps if step.value is not None]
    assert all(any(value.shape == one.shape and np.array_equal(value, one) for one in values) for value in outputs.values())
    assert all(step.name and step.operator for step in steps)
    assert capfd.readouterr() == ("", "")


def test_parameters_are_named_among_what_goes_in() -> None:
    session = open_graph(Model.open(programs() / "pir" / "mlp"))
    steps = {step.operator: step for step in session.steps(feeds(session.inputs))}
    session.close()
    assert steps["pd_op.layer_norm"].inputs[1].endswith(".w_0")


def test_dynamic_axes_take_any_length() -> None:
    session = open_graph(Model.open(programs() / "pir" / "encoder"))
    shapes = [session.run(feeds(session.inputs, batch, length))["fetch_name_0"].shape for batch, length in ((1, 1), (3, 17))]
    session.close()
    assert shapes == [(1, 1, 32), (3, 17, 32)]


def test_wrong_feeds_are_refused_before_paddle_sees_them() -> None:
    session = open_graph(Model.open(programs() / "pir" / "mlp"))
    with pytest.raises(UsageError, match="float64, float32 expected"):
        session.run({"x": np.zeros((2, 8))})
    with pytest.raises(UsageError, match="no array for `x`"):
        session.run({})
    session.close()


def test_devices_there_are_not() -> None:
    with pytest.raises(UsageError, match="not on `tpu`"):
        open_graph(Model.open(programs() / "pir" / "mlp"), device="tpu")


def test_what_paddle_refuses_is_one_line() -> None:
    session = open_graph(Model.open(programs() / "pir" / "encoder"))
    given = feeds(session.inputs)
    with pytest.raises(InputError, match="Paddle could not run it") as caught:
        session.run({**given, "mask": given["mask"][:, :-1]})
    session.close()
    assert "\n" not in caught.value.message


def test_a_native_crash_is_a_message(cold_start: None) -> None:
    with Child() as child, pytest.raises(Crashed, match="it was ended by SIGSEGV"):
        child.call("faulthandler:_sigsegv")


def test_a_folder_with_files_called_like_modules_is_no_danger(cold_start: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json.py", "paddle.py", "numpy.py"):
        (tmp_path / name).write_text("raise SystemExit('taken')")
    monkeypatch.chdir(tmp_path)
    session = open_graph(Model.open(programs() / "pir" / "mlp"))
    assert session.run(feeds(session.inputs))
    session.close()
