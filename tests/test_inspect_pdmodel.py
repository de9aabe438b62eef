"""`ernie inspect` on Paddle programs, without Paddle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paddle_programs import programs

from ernie_cli.app import main


@pytest.mark.parametrize(("name", "kind"), [("pir/lstm", "pir"), ("legacy/shufflenet", "legacy")])
def test_a_program_is_described(name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(programs() / name), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["kind"], found["problems"]) == ("pdmodel", kind, [])
    assert found["inputs"][0]["dtype"] == "float32" and found["outputs"] and found["ops"]
    assert found["parameters"] * 4 == found["bytes_by_dtype"]["fp32"] and found["tensor_count"]


def test_the_bytes_are_those_of_the_file() -> None:
    from ernie_cli.inspect import look

    found = look(programs() / "pir" / "encoder")
    stored = (programs() / "pir" / "encoder" / "model.pdiparams").stat().st_size
    assert 0 < stored - sum(found["bytes_by_dtype"].values()) < 64 * found["tensor_count"]


def test_damaged_parameters_are_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(programs() / "pir" / "lstm", tmp_path / "model"))
    (folder / "model.pdiparams").write_bytes((folder / "model.pdiparams").read_bytes()[:-4])
    main(["inspect", str(folder), "--json"])
    assert "truncated" in json.loads(capsys.readouterr().out)["problems"][0]


def test_paddle_is_not_loaded() -> None:
    code = f"import sys; from ernie_cli.inspect import look; from pathlib import Path; look(Path({str(programs() / 'pir' / 'mlp')!r}))"
    done = subprocess.run([sys.executable, "-c", f"{code}; assert 'paddle' not in sys.modules"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
