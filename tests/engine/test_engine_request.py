"""What goes to the process that builds comes out of JSON as it went in."""

from __future__ import annotations

import json

from ernie_cli.engine.request import Request
from ernie_cli.engine.shapes import Profile


def test_there_and_back():
    profiles = (Profile("prefill", {"ids": ((1, 1), (1, 64), (1, 128))}), Profile("decode", {"ids": ((1, 1),) * 3}))
    request = Request("m.onnx", "tensorrt-rtx", ("8.9", "12.0"), {"batch": 1}, profiles, workspace=1 << 30, effort=0, refit=True)
    assert Request.from_json(request.as_json()) == request
    assert json.loads(request.as_json())["capabilities"] == ["8.9", "12.0"]
