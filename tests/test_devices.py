"""`ernie devices`: every profile, as a table and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ernie_cli import device
from ernie_cli.app import main


def test_every_profile_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices"]) == 0
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()[1:]] == device.names()
    assert f"this machine: {device.detect()[0].name}" in told.err


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_name = {each["name"]: each for each in found["devices"]}
    assert by_name["t4"]["compute_capability"] == "7.5" and "int4" not in by_name["t4"]["precisions"]
    assert "fp8" in by_name["rtx4090"]["precisions"] and found["here"]["why"]


def test_a_reader_that_has_gone() -> None:
    """`ernie devices | true`: 141, as of any program, and nothing on stderr but the last line."""
    process = subprocess.Popen([sys.executable, "-m", "ernie_cli", "devices"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert "error" not in process.communicate()[1]
    assert process.returncode == 141
