"""A decoder whose activations carry large outliers by construction: some channels of every norm ×50, the next weights' rows ÷50.

The function is the same. One scale per activation then has 1/50 of its codes left for all other channels.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ernie_cli.model import Model
from ernie_cli.quant import layers
from ernie_cli.quant.fold import fold, groups
from ernie_cli.quant.scheme import find
from ernie_cli.staging import MANIFEST

TIMES, SHARE = 50.0, 0.05


def with_outliers(source: Model, out: Path, *, times: float = TIMES, share: float = SHARE, seed: int = 0) -> Model:
    """A copy of the ONNX folder `source` in which `share` of each norm's channels are `times` as large."""
    rng = np.random.default_rng(seed)
    graph = ir.load(source.main_file())
    norms = [group for group in groups(graph, layers.find(graph, find("int8"))) if group.name.endswith("norm")]
    assert norms
    for group in norms:
        factors = np.ones(group.channels)
        factors[rng.choice(group.channels, max(1, round(share * group.channels)), replace=False)] = 1 / times
        fold(group, factors)
    out.mkdir()
    for file in source.folder.iterdir():
        if file.name not in (source.main_file().name, MANIFEST):
            shutil.copy2(file, out)
    ir.save(graph, out / source.main_file().name)
    return Model.open(out)
