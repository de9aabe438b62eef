"""ONNX's own node tests of the default domain through onnx → torchscript: what must pass, passes; what is known not to, does not."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import backend_nodes
import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

VERSION = version("onnx")
ENTRIES = tomllib.loads(Path(__file__).with_name("known.toml").read_text())["known"]
KNOWN = [entry for entry in ENTRIES if VERSION.startswith(entry.get("onnx", ""))]
LISTED = {test for entry in KNOWN for test in entry["tests"]}
DRAWN = {test for entry in KNOWN if entry.get("chance") for test in entry["tests"]}
#: Other domains (classical machine learning, optimisers) are none of ours.
OURS = ("tensor", "sequence", "later", "string")


def run_all() -> list[backend_nodes.Result]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny
    found = list(backend_nodes.run_all())
    torch.set_num_threads(threads)
    return found


def test_every_node_test_passes_or_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """And of the float, int and bool tensor tests of the default domain up to opset 24, at least 95 of 100 pass.

    One test, so that processes that share the suite do not each run them all.
    """
    results = run_all()
    count = backend_nodes.count(results)
    text = ", ".join(f"{group}: {passed} of {total}" for group, (passed, total) in count.items())
    with capsys.disabled():
        print(f"\nonnx {VERSION} node tests through onnx → torchscript: {text}")
    if os.environ.get("ERNIE_RECORD"):
        Path(os.environ["ERNIE_RECORD"]).write_text(json.dumps({"onnx": VERSION, "passed_of": count}, indent=2) + "\n")
    failed = {result.name: result.why for result in results if result.why and result.group in OURS}
    unlisted = {name: why for name, why in failed.items() if name not in LISTED}
    passing = [result.name for result in results if not result.why and result.name in LISTED - DRAWN]
    assert not unlisted
    assert not passing, "take these out of known.toml"
    passed, total = count["tensor"]
    assert passed >= 0.95 * total
    assert total > 1000
