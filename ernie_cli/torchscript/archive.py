"""Looks at a TorchScript archive as the zip file it is: names, sizes, checksums. Runs nothing and needs no torch.

Every check here comes before torch's own reader sees the file: that one is native code which trusts names, sizes and
offsets, and does not compare the checksums of weights.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from . import source

#: Code and pickles of real models are some MB; a record of weights is stored as it is.
MOST_TEXT_BYTES = 64 << 20
_MOST_DIRECTORY_BYTES = 64 << 20  # half a million records
_AGAIN = "save it again: torch.jit.script(module).save('model.pt')"
_IN_PLACE_OF_PICKLES = (
    "loading a pickle runs whatever code it holds, so ernie does not: where the module's own code is, "
    "torch.jit.script(module).save('model.pt'), or safetensors for weights alone"
)


@dataclass(frozen=True)
class Archive:
    """A TorchScript archive that passed every check. `root`: the folder in the zip that holds all."""

    file: Path
    zip: zipfile.ZipFile
    root: str

    def names(self) -> list[str]:
        """Records' names without the root folder."""
        return [name[len(self.root) + 1 :] for name in self.zip.namelist()]

    def has(self, name: str) -> bool:
        """Whether there is such a record."""
        return f"{self.root}/{name}" in self.zip.NameToInfo

    def size(self, name: str) -> int:
        """Bytes of a record."""
        return self.zip.getinfo(f"{self.root}/{name}").file_size

    def read(self, name: str) -> bytes:
        """A record that is no tensor: code, a pickle, a version. Raises InputError where it is damaged."""
        try:
            return self.zip.read(f"{self.root}/{name}")
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError) as err:
            raise InputError(f"{self.file}: its record {name!r:.80} is damaged: {err}", _AGAIN) from err

    def code(self) -> dict[str, str]:
        """File name (without code/) → source, of every file of code."""
        names = [name for name in self.names() if name.startswith("code/") and name.endswith(".py")]
        return {name[len("code/") :]: self.read(name).decode(errors="replace") for name in names}


@contextmanager
def opened(file: Path) -> Iterator[Archive]:
    """The archive in `file`, checked. Raises InputError for a pickle, a state_dict, anything else, and damaged archives."""
    _refuse_what_is_no_zip(file)
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as opened_zip:
            archive = Archive(file, opened_zip, _root(file, opened_zip))
            _check_records(archive)
            source.check(file, archive.code())
            yield archive
    except (zipfile.BadZipFile, struct.error, NotImplementedError, UnicodeError, ValueError, EOFError) as err:
        raise InputError(f"{file}: a damaged archive: {err}", _AGAIN) from err


def verify(archive: Archive) -> None:
    """Compare every record with its checksum, which torch does not. Raises InputError naming the first that differs."""
    for info in archive.zip.infolist():
        try:
            with archive.zip.open(info) as record:
                while record.read(1 << 20):
                    pass
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError, struct.error) as err:
            raise InputError(f"{archive.file}: damaged: {info.filename!r:.80} does not have its checksum: {err}", _AGAIN) from err


def _refuse_what_is_no_zip(file: Path) -> None:
    if not file.is_file():
        raise InputError(f"{file}: no file", "name a TorchScript file")
    with file.open("rb") as handle:
        head = handle.read(8)
    if not head:
        raise InputError(f"{file}: an empty file", _AGAIN)
    if head[:1] == b"\x80":  # PROTO, the first byte of every pickle since protocol 2; torch.save wrote bare ones before 1.6
        raise InputError(f"{file}: a Python pickle, not TorchScript", _IN_PLACE_OF_PICKLES)
    if head[:2] != b"PK":
        raise InputError(f"{file}: not a TorchScript file: those are zip archives", _AGAIN)


def _check_directory(file: Path) -> None:
    """Refuse a list of records so long that reading it would fill the memory. Raises InputError, or BadZipFile."""
    with file.open("rb") as handle:
        end = handle.seek(0, 2)
        handle.seek(max(0, end - (1 << 16) - 22))
        tail = handle.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < 22:
        raise InputError(f"{file}: truncated: the archive has no end", _AGAIN)
    n_bytes = struct.unpack_from("<L", tail, at + 12)[0]
    wide = tail.rfind(b"PK\6\6", 0, at)  # zip64: sizes over 4 GB stand in a record of their own
    if n_bytes == 0xFFFFFFFF and wide >= 0 and len(tail) - wide >= 56:
        n_bytes = struct.unpack_from("<Q", tail, wide + 40)[0]
    if n_bytes > min(_MOST_DIRECTORY_BYTES, end):
        raise InputError(f"{file}: {n_bytes} bytes of names: not a model", _AGAIN)


def _root(file: Path, archive: zipfile.ZipFile) -> str:
    """The folder that holds constants.pkl and code/. Raises InputError for the archives of torch.save."""
    names = archive.namelist()
    roots = {name.split("/", 1)[0] for name in names}
    if len(roots) != 1:
        raise InputError(f"{file}: a zip archive, but no TorchScript: its records lie in {len(roots)} folders", _AGAIN)
    root = roots.pop()
    if f"{root}/constants.pkl" in names and any(name.startswith(f"{root}/code/") for name in names):
        return root
    if f"{root}/data.pkl" in names:
        raise InputError(f"{file}: weights or a pickled module as torch.save writes them, without TorchScript code", _IN_PLACE_OF_PICKLES)
    raise InputError(f"{file}: a zip archive, but no TorchScript", _AGAIN)


def _check_records(archive: Archive) -> None:
    """Sizes that fit the file, names that stay inside, no record twice, text of bearable length."""
    seen: set[str] = set()
    stored = 0
    for info in archive.zip.infolist():
        name = info.filename
        if name in seen or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise InputError(f"{archive.file}: refuses the record {name!r:.80}: a name that is twice there or leaves the archive", _AGAIN)
        seen.add(name)
        stored += info.compress_size
        if info.flag_bits & 1:
            raise InputError(f"{archive.file}: {name!r:.80} is encrypted", _AGAIN)
        text = name.endswith((".py", ".pkl")) or name.startswith(f"{archive.root}/code/")
        if info.file_size > (MOST_TEXT_BYTES if text else max(info.compress_size, 1 << 20)):
            raise InputError(f"{archive.file}: {name!r:.80} would unpack to {info.file_size} bytes: not a model", _AGAIN)
    if stored > archive.file.stat().st_size:
        raise InputError(f"{archive.file}: its records would overlap: {stored} bytes in {archive.file.stat().st_size}", _AGAIN)
    if sum(info.file_size for info in archive.zip.infolist() if info.compress_type) > 4 * MOST_TEXT_BYTES:
        raise InputError(f"{archive.file}: its code would unpack to more than {4 * MOST_TEXT_BYTES >> 20} MiB: not a model", _AGAIN)
