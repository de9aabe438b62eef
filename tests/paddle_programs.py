"""Seeded Paddle programs for tests of several rooms: saved once per run, by a process of its own, as Paddle reads its flags once."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from forks import PADDLE, WARM

from ernie_cli.pdmodel import child
from ernie_cli.runtime.graphs import TensorSpec

PIR = ("mlp", "typed", "encoder", "lstm", "gru", "crnn", "detector", "segmenter", "unmapped", "strict")
LEGACY = ("shufflenet", "squeezenet")  # Paddle 3.3 itself fails to save most others as legacy programs
sys.path.append(str(Path(__file__).parent / "pdmodel"))  # where zoo.py is


@cache
def programs() -> Path:
    """A folder with pir/NAME and legacy/NAME, each holding model.json or model.pdmodel, and model.pdiparams."""
    folder = Path(tempfile.mkdtemp(prefix="ernie-programs-"))
    atexit.register(shutil.rmtree, folder, True)
    for kind, names, flag in (("pir", PIR, "1"), ("legacy", LEGACY, "0")):
        env = {**os.environ, **child._SETTINGS, "FLAGS_enable_pir_api": flag}
        with tempfile.TemporaryFile() as said:
            made = WARM.start("zoo:save_all", str(folder / kind), names, preload=PADDLE, env=env, output=said.fileno())
            code = made.wait()
            said.seek(0)
            assert code == 0, said.read().decode()
    return folder


def feeds(inputs: tuple[TensorSpec, ...], batch: int = 2, length: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded arrays for these inputs: the first axis is the batch, the other dynamic ones are `length` long."""
    rng = np.random.default_rng(seed)
    return {spec.name: _array(spec, batch, length, rng) for spec in inputs}


def _array(spec: TensorSpec, batch: int, length: int, rng: np.random.Generator) -> np.ndarray:
    dynamic = [batch if axis == 0 else length for axis in range(len(spec.shape or ()))]
    shape = [one if isinstance(one, int) else other for one, other in zip(spec.shape or (), dynamic, strict=True)]
    if spec.dtype == "bool":
        return rng.random(shape) > 0.3
    return rng.integers(0, 9, shape).astype(spec.dtype) if "int" in spec.dtype else rng.normal(size=shape).astype(spec.dtype)
