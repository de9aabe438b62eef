"""Every architecture of the zoo by name. Importing this loads no framework."""

from __future__ import annotations

import paddle_layers
import paddle_vision
import torch_layers
import torch_transformers
from architecture import Architecture

ZOO: dict[str, Architecture] = {
    one.name: one
    for one in (
        *paddle_vision.ARCHITECTURES,
        *paddle_layers.ARCHITECTURES,
        *torch_transformers.ARCHITECTURES,
        *torch_layers.ARCHITECTURES,
    )
}
