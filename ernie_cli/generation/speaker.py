"""An opened model that answers: a session, its prompts and the options together. Knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .. import console
from ..runtime import Session
from ..runtime.open import open_session
from .interrupt import listening
from .loop import Row, generate
from .prompt import Prompter
from .reply import Options, Reply


class Speaker:
    """Answers one prompt at a time on row 0, keeping the cache of what successive prompts have in common."""

    def __init__(self, session: Session, prompter: Prompter, options: Options) -> None:
        self.session = session
        self.prompter = prompter
        self.options = options
        self._row = Row(session)

    @property
    def context(self) -> int:
        """Most tokens of prompt and reply together."""
        return self.session.info.context

    def reply(self, prompt: Sequence[int], options: Options | None = None, stream: int = 0) -> Reply:
        """A reply to `prompt` that is still to be generated. stream: number of the prompt in its batch or conversation."""
        text = self.prompter
        return Reply(prompt, options or self.options, context=self.context, eos=text.eos, tokenizer=text.tokenizer, stream=stream)

    def answer(self, prompt: Sequence[int], show: Callable[[str], None], stream: int = 0) -> Reply:
        """Generate, handing text to `show` as it comes (none where there is no tokenizer). Ctrl-C ends the reply early."""
        reply = self.reply(prompt, stream=stream)
        with listening() as pressed:
            for text in generate(self._row, reply, pressed):
                show(text)
        return reply


@contextmanager
def opened(
    model: str,
    options: Options,
    *,
    raw: bool = False,
    system: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    batch: int = 1,
    context: int | None = None,
    threads: int | None = None,
) -> Iterator[Speaker]:
    """Open a model (see runtime/open.py) with its tokenizer and chat template, and close it again."""
    session, where, reason = open_session(model, backend, device, batch=batch, context=context, threads=threads)
    try:
        console.detail(f"using {session.info.backend} on {session.info.device} ({reason})")
        yield Speaker(session, Prompter(where.folder, session.info, raw=raw, system=system), options)
    finally:
        session.close()
