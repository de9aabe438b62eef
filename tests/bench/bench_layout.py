"""hf → paddle → hf, each hop beside a plain copy of the weight file (shutil.copyfile and fsync): wall time and peak memory.

    python tests/bench/bench_layout.py [--work DIR] [--rounds 5]

A hop is timed twice: as a whole `ernie convert` process, interpreter start and check included, and as a call alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rounds
import seeded

from ernie_cli import console, route
from ernie_cli.checkpoint import Checkpoint


def copy(source: Path, out: Path) -> rounds.Sample:
    """The peer: the weights' file copied and on disk."""
    start = time.perf_counter()
    shutil.copyfile(source / "model.safetensors", out)
    handle = os.open(out, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    return {"seconds": time.perf_counter() - start}


def process(source: Path, to: str, out: Path) -> rounds.Sample:
    """Our command line."""
    return rounds.timed([sys.executable, "-m", "ernie_cli", "convert", str(source), "--to", to, "-o", str(out), "--force", "-q"])


def call(source: Path, to: str, out: Path) -> rounds.Sample:
    """The same without the start of an interpreter, in a process of its own."""
    return rounds.printed([sys.executable, __file__, "--call", str(source), to, str(out)])


def timed_call(source: str, to: str, out: str) -> None:
    """What `call` runs."""
    console.settings.verbosity = -1
    start = time.perf_counter()
    route.convert(source, to=to, out=Path(out), force=True)
    print(json.dumps({"seconds": time.perf_counter() - start}))


def same(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold the same weights, every bit of them."""
    one, other = Checkpoint.open(a), Checkpoint.open(b)
    return one.names() == other.names() and all(one.read(name).tobytes() == other.read(name).tobytes() for name in one.names())


def bench(work: Path, n_rounds: int) -> None:
    """Measure and print."""
    work.mkdir(parents=True, exist_ok=True)
    hf, paddle, back = work / "checkpoint", work / "paddle", work / "back"
    # In a process of its own: a child's peak memory starts from that of the process that forked it.
    subprocess.run([sys.executable, seeded.__file__, str(hf)], check=True, stdout=subprocess.DEVNULL)
    copy(hf, work / "copy")  # from here on the source is in the page cache, for everyone
    contenders = {
        "hf → paddle": lambda: process(hf, "paddle", paddle),
        "paddle → hf": lambda: process(paddle, "hf", back),
        "hf → paddle, call": lambda: call(hf, "paddle", paddle),
        "paddle → hf, call": lambda: call(paddle, "hf", back),
    }
    turns = {
        name: run
        for hop, measure in contenders.items()
        for name, run in ((f"copy before {hop}", lambda: copy(hf, work / "copy")), (hop, measure))
    }
    results = rounds.take_turns(turns, n_rounds)
    assert same(hf, back), "the way there and back changed a weight"
    print("| hop | seconds | copy | speed of the copy | peak MB |\n|---|---|---|---|---|")
    for hop in contenders:
        row, peer = results[hop], results[f"copy before {hop}"]["seconds"]
        print(f"| {hop} | {row['seconds']:.2f} | {peer:.2f} | {peer / row['seconds']:.0%} | {row.get('peak_mb', float('nan')):.0f} |")
    print("\nmust be >= 50 %, <= 1000 MB; there and back: every bit the same")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--call", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.call:
        timed_call(*args.call)
        return
    with tempfile.TemporaryDirectory() as scratch:
        bench(args.work or Path(scratch), args.rounds)


if __name__ == "__main__":
    main()
