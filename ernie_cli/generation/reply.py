"""One reply as it grows: the next token, its text, whether it ends here, how long it took. What steps the model is loop.py and batch.py."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import UsageError
from .sampling import Sampler, Sampling
from .stop import StopFilter
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Options:
    """How to write a reply. max_tokens: at most that many, None: until the context is full. Raises UsageError out of range."""

    max_tokens: int | None = 512
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"--max-tokens {self.max_tokens} makes no sense", "give at least 1")
        if "" in self.stop:
            raise UsageError("an empty --stop would end every reply at once", "give it some text")


@dataclass
class Timing:
    """Moments in seconds of time.perf_counter. computed: prompt tokens that were run, not found in the cache."""

    begun: float = 0.0
    first: float = 0.0
    last: float = 0.0
    computed: int = 0


class Reply:
    """Feed it logits with `take` until `finish_reason` is set: "stop" (end token or stop string), "length", "interrupted".

    token_ids: every generated token, with the end token. text: without control tokens and stop string; None where there is
    no tokenizer.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        options: Options,
        *,
        context: int,
        eos: frozenset[int] = frozenset(),
        tokenizer: Tokenizer | None = None,
        stream: int = 0,
    ) -> None:
        if options.stop and tokenizer is None:
            raise UsageError("--stop needs the model's tokenizer, and its folder has none", "leave --stop out")
        self.prompt = list(prompt)
        self.options = options
        self.token_ids: list[int] = []
        self.text: str | None = None if tokenizer is None else ""
        self.finish_reason = ""
        self.timing = Timing()
        self._eos = frozenset() if options.ignore_eos else eos
        # The last token need not fit: nothing is asked of the model after it.
        room = context - len(self.prompt) + 1
        self._limit = room if options.max_tokens is None else min(options.max_tokens, room)
        self._sampler = Sampler(options.sampling, self.prompt, stream)
        self._stream = tokenizer.stream() if tokenizer else None
        self._stops = StopFilter(options.stop)

    def begin(self) -> None:
        """Start the clock: the prompt goes to the model now."""
        self.timing.begun = time.perf_counter()

    def take(self, logits: np.ndarray) -> str:
        """Choose the next token from float32 [vocab_size] and return the text that is certain now."""
        token = self._sampler.pick(logits)
        self.token_ids.append(token)
        self.timing.last = time.perf_counter()
        self.timing.first = self.timing.first or self.timing.last
        text = self._show(self._stream.push(token) if self._stream else "")
        if self._stops.hit:
            self.finish_reason = "stop"
        elif token in self._eos:
            return text + self.end("stop")
        elif len(self.token_ids) >= self._limit:
            return text + self.end("length")
        return text

    def end(self, reason: str) -> str:
        """Finish for `reason`; returns the text that was held back."""
        text = self._show(self._stream.finish() if self._stream else "")
        rest = self._stops.finish()
        if self.text is not None:
            self.text += rest
        self.finish_reason = "stop" if self._stops.hit else reason
        return text + rest

    def _show(self, text: str) -> str:
        text = self._stops.push(text)
        if self.text is not None:
            self.text += text
        return text
