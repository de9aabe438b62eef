"""A whole repository: asked for, checked, fetched in parallel, locked, published. One file is `fetch.py`'s affair.

Order: everything cheap first (names, place, disk), then the indices (does the repository hold what they name?), then
the weights. What was fetched stays in `<out>.partial` when something fails that may pass, for the same command to go on.

Exit codes: 2 no such repository (a private one looks the same to strangers), revision or file; 3 the repository is
broken or hostile (names, missing shards); 7 no room; 8 no network, no access, or a hash that is not what the hub
promises (after one more try from the start).
"""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import console, model
from ..console import printable
from ..errors import InputError, ResourceError
from ..staging import safe_join, staged
from . import aistudio, embedded, fit, hf, listing, lock, modelscope, transport
from .fetch import Fetched, Job, fetch
from .listing import HALVES, Listing, RemoteFile, Source
from .parallel import in_parallel
from .wish import Wish, check_place, finished, wish

SOURCES: dict[str, Source] = {"hf": hf, "modelscope": modelscope, "aistudio": aistudio, embedded.SOURCE: embedded}
#: Hubs give each connection a share; a few of them fill most lines. huggingface_hub uses as many.
_CONNECTIONS = 8
#: EFBIG: over the file size that the disk's format, or `ulimit -f`, allows.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Plan:
    """What a download would fetch. key: the digest of its result."""

    wanted: Wish
    listing: Listing
    files: tuple[RemoteFile, ...]

    @property
    def key(self) -> str:
        return self.wanted.key(self.files, self.listing.commit)

    @property
    def bytes(self) -> int:
        return sum(each.size for each in self.files)


def download(
    name: str,
    out: Path | None = None,
    *,
    source: str = "hf",
    revision: str = "",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    force: bool = False,
) -> lock.Report:
    """Fetch a model of the catalogue, or any `org/name`, into `out` (default: ./<name>). Raises as the module says."""
    return fetch_wish(wish(name, out, source=source, revision=revision, include=include, exclude=exclude), force=force)


def fetch_wish(wanted: Wish, *, force: bool = False) -> lock.Report:
    """Fulfil a wish, or find it fulfilled. Raises as the module says."""
    done = None if force else finished(wanted)
    if done and wanted.revision and wanted.revision == done["made_from"].get("commit"):
        return lock.report(wanted.out, done, up_to_date=True)  # a commit never changes: nobody needs to be asked
    if not force:
        check_place(wanted)
    try:
        todo = plan(wanted)
    except transport.Unreachable as err:
        if not done:
            raise
        console.warn(f"{err.message}: {wanted.out} is whole, but may not be the newest")
        return lock.report(wanted.out, done, up_to_date=True)
    if done and done["key"] == todo.key:
        return lock.report(wanted.out, done, up_to_date=True)
    return embedded.copy(wanted, todo.files) if wanted.source == embedded.SOURCE else _fetch(todo, force)


def plan(wanted: Wish) -> Plan:
    """Ask the hub, choose the files, check their names. Raises as the module says."""
    if wanted.why:
        console.info(f"using {wanted.why}")
    hub = SOURCES[wanted.source]
    found = hub.list_repo(wanted.repo, wanted.revision or hub.HUB.revision)
    files = listing.select(found.files, wanted.include, wanted.exclude)
    listing.check_names(files, wanted.out)
    return Plan(wanted, found, files)


def _fetch(todo: Plan, force: bool) -> lock.Report:
    wanted, found = todo.wanted, todo.listing
    older = wanted.out if not force and wanted.out.is_dir() else None
    fit.check_disk(todo.files, wanted.out, afresh=force)
    with staged(wanted.out, resume=not force, keep_on_error=True) as partial, _tidy(partial), _translated(todo):
        fetched = _fetch_all(todo, partial, older)
        _drop_others(partial, {each.path for each in todo.files})
        made_from = {
            "source": wanted.source, "repo": wanted.repo, "revision": found.revision, "commit": found.commit,
            "url": found.page, "licence": found.licence,
        }  # fmt: skip
        manifest = lock.write(partial, wanted, todo.files, fetched, made_from)
    return lock.report(wanted.out, manifest, sum(each.bytes for each in fetched))


def _fetch_all(todo: Plan, partial: Path, older: Path | None) -> list[Fetched]:
    """All files, the indices before the rest; in the order of the plan."""
    counting = threading.Lock()
    with console.progress(todo.wanted.out.name, todo.bytes, unit="bytes") as meter:

        def advance(amount: int) -> None:
            with counting:
                meter.advance(amount)

        job = Job(partial, older, todo.listing.auth, advance, threading.Event())
        results: dict[str, Fetched] = {}
        indices = [each for each in todo.files if each.path.endswith(".index.json")]
        rest = sorted((each for each in todo.files if each not in indices), key=lambda each: -each.size)
        for batch in (indices, rest):
            got = in_parallel(lambda each: fetch(each, job), batch, _CONNECTIONS, job.stop)
            results.update(zip((each.path for each in batch), got, strict=True))
            if batch is indices:
                _check_indices(partial, indices, {each.path for each in todo.listing.files})
    return [results[each.path] for each in todo.files]


def _check_indices(partial: Path, indices: Sequence[RemoteFile], all_paths: set[str]) -> None:
    """Raise InputError where an index names a shard that the repository lacks: before the other 40 GB are fetched."""
    for each in indices:
        content = model.read_json(partial / each.path)
        shards = content.get("weight_map")
        folder = each.path.rpartition("/")[0]
        for shard in sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else ():
            safe_join(partial, shard)
            if (f"{folder}/{shard}" if folder else shard) not in all_paths:
                raise InputError(
                    f"the repository is not whole: {each.path} names `{printable(shard)}`, which it does not hold",
                    "tell its owner; another --source or --revision may have it",
                )


def _drop_others(partial: Path, paths: set[str]) -> None:
    """Remove what an interrupted download of something else left."""
    shutil.rmtree(partial / HALVES, ignore_errors=True)
    for path in sorted(partial.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(partial).as_posix() not in paths:
            path.unlink()


@contextmanager
def _tidy(partial: Path) -> Iterator[None]:
    """After a failure keep what another try can use: nothing of a broken repository, no folder without a byte in it."""
    try:
        yield
    except BaseException as err:
        if isinstance(err, InputError) or not any(path.is_file() and path.stat().st_size for path in partial.rglob("*")):
            shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def _translated(todo: Plan) -> Iterator[None]:
    """A full disk and a refused file, in our words."""
    try:
        yield
    except transport.Refused as err:
        found = todo.listing
        raise listing.explain(err, SOURCES[found.source].HUB, found.repo, found.page) from err
    except OSError as err:
        if err.errno not in _DISK_FULL:
            raise
        hint = "free some space; the same command continues where this one stopped"
        raise ResourceError(f"no room for {todo.wanted.out}: {err.strerror}", hint) from err
