"""An opened model that answers: a session, its prompts and the options together. Knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..runtime import Session
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

    def reply(self, prompt: Sequence[int], options: Options | None = None, stream: int = 0) -> Reply:
        """A reply to `prompt` that is still to be generated. stream: number of the prompt in its batch or conversation."""
        p = self.prompter
        return Reply(prompt, options or self.options, context=self.session.info.context, eos=p.eos, tokenizer=p.tokenizer, stream=stream)

    def answer(self, prompt: Sequence[int], show: Callable[[str], None], stream: int = 0) -> Reply:
        """Generate, handing text to `show` as it comes (without a tokenizer: token ids). Ctrl-C ends the reply early."""
        reply = self.reply(prompt, stream=stream)
        with listening() as pressed:
            for text in generate(self._row, reply, pressed):
                show(text)
        return reply
