"""kill -9 at seeded moments of a process's work, however fast the machine happens to be: shared by the kill tests."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable

from forks import Forked


class Kills:
    """Counts the kills that landed on a working process. `span_s` is the first guess of how long the work lasts: it shrinks
    whenever a process ends before its kill, so that most kills land on a fast machine as on a slow one."""

    def __init__(self, span_s: float, seed: int = 0) -> None:
        self.span_s, self.landed, self.tries = span_s, 0, 0
        self._random = random.Random(seed)

    def strike(self, process: subprocess.Popen[bytes] | Forked, begun: Callable[[], bool]) -> bool:
        """Wait until `begun()`, then a random share of the span, then kill. Whether the process was still at work."""
        self.tries += 1
        assert self.tries <= 200, f"only {self.landed} kills landed in {self.tries} tries"
        while not begun() and process.poll() is None:
            time.sleep(0.001)
        try:
            process.wait(self._random.uniform(0, self.span_s))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            self.landed += 1
            return True
        assert process.returncode == 0, "it failed by itself"  # also when it ended between the wait and the kill
        self.span_s *= 0.8
        return False
