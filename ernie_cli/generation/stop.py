"""Stop strings in a text that comes in pieces. Knows no tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Lets text through except what could still become a stop string, and cuts before the first one that does."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """What may be shown now. After a hit, nothing ever."""
        if self.hit:
            return ""
        text = self._held + text
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        keep = self._undecided(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and became no stop string after all."""
        rest, self._held = self._held, ""
        return rest

    def _undecided(self, text: str) -> int:
        """How many characters at the end of `text` are the beginning of a stop string."""
        longest = min(len(text), max((len(stop) - 1 for stop in self._stops), default=0))
        return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
