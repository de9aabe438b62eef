"""Arrays in files: what comes back, and what is refused before it costs anything."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from ernie_cli import npz
from ernie_cli.errors import InputError, ResourceError, UsageError


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "int8", "uint8", "bool", "bfloat16"])
def test_there_and_back(tmp_path: Path, dtype: str) -> None:
    wanted = np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, dtype, dtype))
    npz.write(tmp_path / "x.npz", {"b": wanted, "a": np.float32(1)})
    found = npz.read(tmp_path / "x.npz")
    assert list(found) == ["b", "a"] and found["a"].shape == ()
    again = npz.typed(found["b"], dtype)
    assert again.dtype == wanted.dtype and again.tobytes() == wanted.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("_npy", ".npy"), content)
    return path


def plain() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 no more"),
        lambda path: path.write_bytes(plain()),
        lambda path: archive(path, x_npy=b"no array"),
        lambda path: archive(path, x_npy=plain()[:-4]),
        lambda path: archive(path, x_npy=pickled()),
        lambda path: archive(path, evil=plain()),
        lambda path: path.mkdir(),
        lambda path: None,
    ],
    ids=["empty", "no zip", "npy", "garbage inside", "cut", "objects", "other files", "folder", "absent"],
)
def test_what_is_no_npz_is_refused(tmp_path: Path, make: object) -> None:
    make(tmp_path / "x.npz")  # type: ignore[operator]
    with pytest.raises(InputError, match=r"x\.npz"):
        npz.read(tmp_path / "x.npz")


def test_more_than_memory_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path / "x.npz", x_npy=plain() + bytes(10_000_000))  # deflated to a few kB
    monkeypatch.setattr("ernie_cli.host.memory", lambda: type("Memory", (), {"available": 1_000_000}))
    with pytest.raises(ResourceError):
        npz.read(tmp_path / "x.npz")


def test_where_no_file_can_stand(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "no" / "y.npz"):
        with pytest.raises(UsageError):
            npz.check_out(place)
