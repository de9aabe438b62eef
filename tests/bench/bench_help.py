"""`ernie --help` against `polygraphy -h`: wall time of both, in a pipe and on a terminal.

    python tests/bench/bench_help.py --peer-python PEERS/bin/python [--rounds 10]

The peers' environment holds polygraphy. Exit code 1 where ernie is the slower one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import rounds


def on_terminal(command: list[str]) -> rounds.Sample:
    """Wall seconds of a command that believes it has a terminal."""
    ours, theirs = pty.openpty()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    with contextlib.suppress(OSError):  # EIO: how Linux says that the other side has hung up
        while os.read(ours, 1 << 16):
            continue
    process.wait()
    os.close(ours)
    return {"seconds": time.perf_counter() - start}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    ours = [str(Path(sys.executable).with_name("ernie")), "--help"]
    peer = [str(args.peer_python.with_name("polygraphy")), "-h"]
    for command in (ours, peer):
        rounds.timed(command)  # the first start fills the disk cache
    results = rounds.take_turns(
        {
            "ernie --help": lambda: {"seconds": rounds.timed(ours)["seconds"]},
            "polygraphy -h": lambda: {"seconds": rounds.timed(peer)["seconds"]},
            "ernie --help, on a terminal": lambda: on_terminal(ours),
            "polygraphy -h, on a terminal": lambda: on_terminal(peer),
        },
        args.rounds,
    )
    print(rounds.table(results))
    ratios = [results[f"ernie --help{where}"]["seconds"] / results[f"polygraphy -h{where}"]["seconds"] for where in ("", ", on a terminal")]
    print(f"ernie / polygraphy: {ratios[0]:.2f} in a pipe, {ratios[1]:.2f} on a terminal")
    return int(max(ratios) > 1)


if __name__ == "__main__":
    sys.exit(main())
