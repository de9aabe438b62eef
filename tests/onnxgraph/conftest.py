"""Fixtures of this room; the models are in onnx_models.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """`saved(proto)` → the path of a file with it; with external=True, weights in w.bin beside it."""

    def save(proto: onnx.ModelProto, *, external: bool = False) -> Path:
        path = tmp_path / "model.onnx"
        (tmp_path / "w.bin").unlink(missing_ok=True)
        onnx.save(proto, str(path), save_as_external_data=external, location="w.bin", size_threshold=0)
        return path

    return save
