"""`ernie devices`: every profile, as a table and as JSON."""

from __future__ import annotations

import json

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
