"""Time `ernie --help` against `polygraphy -h`: both in one run, in turn, median of ten, in a pipe and on a terminal.

    python tests/bench/bench_help.py [--peers ENVIRONMENT]

ENVIRONMENT (or $PEERS) is a virtual environment that holds polygraphy; without either, the one this runs in is tried.
Exit code 1 where ernie is the slower one in the pipe.
"""

from __future__ import annotations

import argparse
import os
import pty
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 10


def main() -> int:
    """Print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=os.environ.get("PEERS") or sys.prefix)
    peers = Path(parser.parse_args().peers)
    ours, theirs = [_script(Path(sys.prefix), "ernie"), "--help"], [_script(peers, "polygraphy"), "-h"]
    print(f"{'stdout':<10}{'ernie --help':>14}{'polygraphy -h':>16}{'ratio':>8}")
    ratios = {}
    for name, timed in (("pipe", in_pipe), ("terminal", on_terminal)):
        mine, peer = medians(timed, ours, theirs)
        ratios[name] = mine / peer
        print(f"{name:<10}{mine * 1e3:>11.0f} ms{peer * 1e3:>13.0f} ms{ratios[name]:>8.2f}")
    return int(ratios["pipe"] > 1)


def medians(timed: Callable[[list[str]], float], first: list[str], second: list[str]) -> tuple[float, float]:
    """Seconds of two commands, run in turn so that a busy moment meets both; one round before counts nothing."""
    rounds = [(timed(first), timed(second)) for _ in range(ROUNDS + 1)][1:]
    return statistics.median(one for one, _ in rounds), statistics.median(two for _, two in rounds)


def in_pipe(command: list[str]) -> float:
    """Seconds of a command whose output nobody watches."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def on_terminal(command: list[str]) -> float:
    """Seconds of a command that believes it has a terminal."""
    ours, theirs = pty.openpty()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    try:
        while os.read(ours, 1 << 16):
            pass
    except OSError:
        pass  # EIO: how Linux says that the other side has hung up
    process.wait()
    os.close(ours)
    return time.perf_counter() - start


def _script(environment: Path, name: str) -> str:
    found = shutil.which(name, path=str(environment / "bin"))
    if found is None:
        sys.exit(f"no {name} in {environment}: `pip install {name}` there, or name another with --peers")
    return found


if __name__ == "__main__":
    sys.exit(main())
