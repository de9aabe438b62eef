"""How far a build is, as one number that never falls. Knows what the library says of its phases, not how the bar is drawn.

TensorRT tells of nested phases whose steps last from microseconds to minutes, and says nothing while it compiles. `Phases` makes
one share of the tree, in the process that builds; `Pace` keeps the bar moving in between, in the one that draws it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: Phase → what its step of this number weighs; every other step weighs 1. Seen in the logs of builds by TensorRT-RTX 1.7: of six
#: steps of the whole the fifth takes nearly all time, and of five per profile the one that compiles the profile's kernels.
WEIGHTS: Mapping[str, Callable[[int], float]] = {
    "Building engine": lambda step: 60.0 if step == 4 else 1.0,
    "Computing profile costs": lambda step: 40.0 if step % 5 == 3 else 1.0,
}
#: Phases that share a step with a longer one, as a part of that step; every other phase is taken for all of its step.
PARTS: Mapping[str, float] = {"Optimizing graph": 0.03}
#: After this many seconds a silent step is taken to be 63 % done, until one has shown how long they last.
SILENT_SECONDS = 10.0
#: A step of this share or more is one that teaches how long such steps last.
_LONG = 0.05


@dataclass
class _Phase:
    """done: steps that are over. over: parts of the step at hand that phases inside it have finished."""

    parent: str | None
    steps: int
    weigh: Callable[[int], float]
    done: int = 0
    over: float = 0.0

    def share(self, inside: float) -> float:
        """From 0 to 1, with the step at hand done to the share `inside`."""
        weights = [self.weigh(step) for step in range(self.steps)]
        at_hand = weights[self.done] if self.done < self.steps else 0.0
        return (sum(weights[: self.done]) + at_hand * min(1.0, inside)) / sum(weights)


class Phases:
    """The phases that are open. Each call returns (share done, which never falls, share once the innermost step is done)."""

    def __init__(self, weights: Mapping[str, Callable[[int], float]] = WEIGHTS) -> None:
        self._weights = weights
        self._open: dict[str, _Phase] = {}
        self._most = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> tuple[float, float]:
        """A phase of `steps` steps begins, inside the step at hand of `parent`."""
        self._open[name] = _Phase(parent, max(1, steps), self._weights.get(name, lambda step: 1.0))
        return self._shares()

    def step(self, name: str) -> tuple[float, float]:
        """One more step of a phase is done."""
        if phase := self._open.get(name):
            phase.done, phase.over = min(phase.steps, phase.done + 1), 0.0
        return self._shares()

    def finish(self, name: str) -> tuple[float, float]:
        """A phase is over, whatever of its steps were skipped."""
        phase = self._open.pop(name, None)
        if phase and phase.parent is None:
            self._most = 1.0
        elif phase and phase.parent in self._open:
            self._open[phase.parent].over += PARTS.get(name, 1.0)
        return self._shares()

    def _shares(self) -> tuple[float, float]:
        roots = [name for name, phase in self._open.items() if phase.parent is None]
        now, ahead = (max((self._share(name, hope) for name in roots), default=0.0) for hope in (0.0, 1.0))
        self._most = max(self._most, now)
        return self._most, max(self._most, ahead)

    def _share(self, name: str, hope: float) -> float:
        """hope: how much of a step counts that no phase tells more about."""
        phase = self._open[name]
        inside = [child for child, other in self._open.items() if other.parent == name]
        told = phase.over + sum(PARTS.get(child, 1.0) * self._share(child, hope) for child in inside)
        return phase.share(told if inside else max(told, hope))


@dataclass
class Pace:
    """What the bar shows: the share that was reported, and in the silence after it a little more, never all that is ahead."""

    now: float = 0.0
    ahead: float = 0.0
    since: float = 0.0
    typical: float = SILENT_SECONDS
    shown: float = 0.0

    def heard(self, now: float, ahead: float, time: float) -> None:
        """A report came at `time`, in seconds of a clock that never falls."""
        if self.ahead - self.now >= _LONG and now >= self.ahead:
            self.typical = max(1.0, time - self.since)
        if (now, ahead) != (self.now, self.ahead):
            self.now, self.ahead, self.since = now, ahead, time

    def share(self, time: float) -> float:
        """What to show at `time`."""
        guess = 1 - math.exp(-(time - self.since) / self.typical)
        self.shown = max(self.shown, self.now + (self.ahead - self.now) * 0.9 * guess)
        return self.shown
