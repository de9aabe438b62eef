"""Seeded TorchScript modules of many kinds, and mutations of their files. torch made them: nobody here wrote their archives."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any, Optional

import torch
from torch import nn


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))


class Cnn(nn.Module):
    """Batch norm that is not the identity, a grouped convolution, an operator that writes in place, adaptive pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, groups=2)
        self.b1, self.b2 = nn.BatchNorm2d(8), nn.BatchNorm2d(16)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 5)
        for norm in (self.b1, self.b2):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.b1(self.c1(x)))
        return self.head(self.pool(self.b2(self.c2(x)).relu()).flatten(1))


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.lstm = nn.LSTM(12, 10, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 7)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, (h, _) = self.lstm(self.embed(ids))
        return self.head(y), h


class Flow(nn.Module):
    """A loop, a branch on data, and arguments that are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor, scale: Optional[torch.Tensor] = None, times: int = 3) -> torch.Tensor:  # noqa: UP045 TorchScript
        for _ in range(times):
            x = self.a(x) if bool(x.sum() > 0) else self.b(x) * 2
        if scale is not None:
            x = x * scale
        return x


class Mixed(nn.Module):
    """An integer and a boolean input; outputs in a dict, of three types."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(ids).masked_fill(mask.unsqueeze(-1), 0.0)
        return {"sum": x.sum(1), "any": mask.any(1), "twice": ids * 2}


class Unused(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2


class Strange(nn.Module):
    """Operators that torch's exporter has no mapping for, one of them in a branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.linalg.svd(x)[1]
        if bool(x.sum() > 0):
            a = a + torch.special.entr(a)
        return a + torch.special.i0(x).sum()


def _bert() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=100, max_position_embeddings=64, **sizes))
    return model, (torch.randint(0, 100, (1, 7)), torch.ones(1, 7, dtype=torch.long))


def _vit() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes)), (torch.randn(1, 3, 32, 32),)


#: name → (module and example inputs, how it becomes TorchScript)
_MAKERS: dict[str, tuple[Any, str]] = {
    "mlp": (lambda: (Mlp(), (torch.randn(2, 8),)), "script"),
    "cnn": (lambda: (Cnn(), (torch.randn(2, 3, 24, 24),)), "script"),
    "cnn_traced": (lambda: (Cnn(), (torch.randn(1, 3, 24, 24),)), "trace"),
    "cnn_frozen": (lambda: (Cnn(), (torch.randn(2, 3, 24, 24),)), "freeze"),
    "lstm": (lambda: (Lstm(), (torch.randint(0, 50, (2, 5)),)), "script"),
    "flow": (lambda: (Flow(), (torch.randn(2, 6),)), "script"),
    "mixed": (lambda: (Mixed(), (torch.randint(0, 20, (2, 5)), torch.rand(2, 5) > 0.5)), "trace"),
    "half": (lambda: (Mlp().half(), (torch.randn(2, 8).half(),)), "trace"),
    "brain": (lambda: (Mlp().bfloat16(), (torch.randn(2, 8).bfloat16(),)), "trace"),
    "unused": (lambda: (Unused(), (torch.randn(2, 3), torch.randn(2, 3))), "trace"),
    "strange": (lambda: (Strange(), (torch.randn(2, 4, 4),)), "script"),
    "bert": (_bert, "trace"),
    "vit": (_vit, "trace"),
}


def module(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The eager module, in eval mode, and inputs for it; the same at every call."""
    torch.manual_seed(7)
    made, inputs = _MAKERS[name][0]()
    return made.eval(), inputs


def save(name: str, file: Path) -> Path:
    """Write the module as TorchScript."""
    made, inputs = module(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, says torch 2.9
        how = _MAKERS[name][1]
        scripted = torch.jit.trace(made, inputs, strict=False) if how == "trace" else torch.jit.script(made)
        (torch.jit.freeze(scripted) if how == "freeze" else scripted).save(str(file))
    return file


def rewritten(content: bytes, changed: dict[str, bytes | None]) -> bytes:
    """An archive with some records replaced (by the end of their name), or left out where None; checksums are right."""
    source, out = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in source.namelist():
            ending = next((ending for ending in changed if name.endswith(ending)), None)
            data = source.read(name) if ending is None else changed[ending]
            if data is not None:
                made.writestr(name, data)
    return out.getvalue()


def mutated(content: bytes, seed: int) -> bytes:
    """A file damaged by chance: bytes of the file, or (with right checksums) of one record."""
    rng = random.Random(seed)
    if rng.random() < 0.4:
        return _damaged(bytearray(content), rng)
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    victim = rng.choice([name for name in names if not name.rpartition("/")[2].isdecimal()])
    record = zipfile.ZipFile(io.BytesIO(content)).read(victim)
    return rewritten(
        content, {victim: rng.choice([_damaged(bytearray(record), rng), None]) if rng.random() < 0.2 else _damaged(bytearray(record), rng)}
    )


def _damaged(data: bytearray, rng: random.Random) -> bytes:
    if not data:
        return rng.randbytes(20)
    at, end = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    kind = rng.choice(("bytes", "bytes", "bits", "cut", "repeat", "zeros", "noise"))
    if kind in ("bytes", "bits"):
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(data))
            data[place] = rng.randrange(256) if kind == "bytes" else data[place] ^ (1 << rng.randrange(8))
    elif kind == "cut":
        del data[at:]
    elif kind == "repeat":
        data[end:end] = data[at:end][:400] * rng.randint(1, 20)
    else:
        data[at : at + 40] = bytes(40) if kind == "zeros" else rng.randbytes(40)
    return bytes(data)
