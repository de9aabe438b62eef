"""Text ↔ token ids for any model folder, told by its files and never by a class name. Knows no chat template and no model.

Two codecs do the reading (tokenizer_fast.py, tokenizer_spm.py). Here is what they share: text that must not become
control tokens, and bytes that become text as they come.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from ..errors import InputError
from .special_tokens import declared

#: Marks where text must be cut before it is encoded. A noncharacter, which Unicode keeps out of every exchanged text.
CUT = "\ufdd0"


class Codec(Protocol):
    """What tokenizer_fast.py and tokenizer_spm.py each are."""

    special: dict[str, int]

    def encode(self, text: str) -> list[int]: ...

    def token_bytes(self, token: int) -> bytes: ...


class Tokenizer:
    """`special`: text → id of the control tokens (`<s>`, `<|end_of_sentence|>`, …), which never show up in decoded text."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.special = codec.special
        names = "|".join(map(re.escape, self.special))
        first = "".join(sorted({re.escape(name[0]) for name in self.special}))  # a quick look before a thousand names are tried
        self._begins_special = re.compile(f"(?=[{first}])(?=(?:{names}))(.)", re.DOTALL) if names else None

    @classmethod
    def open(cls, folder: Path) -> Tokenizer | None:
        """The tokenizer of a model folder: tokenizer.json, else tokenizer.model, else None. Raises InputError where broken."""
        if (folder / "tokenizer.json").is_file():
            from .tokenizer_fast import FastCodec

            return cls(FastCodec(folder / "tokenizer.json", declared(folder)))
        if (folder / "tokenizer.model").is_file():
            from .tokenizer_spm import SentencePieceCodec

            return cls(SentencePieceCodec(folder / "tokenizer.model", declared(folder)))
        return None

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids; nothing is added in front or behind.

        special: whether `<|end_of_sentence|>` in the text is that control token (templates) or just letters (content).
        Raises InputError where the text is not valid Unicode.
        """
        text = text if special else self.shield(text)
        try:
            text.encode()
        except UnicodeEncodeError as err:
            raise InputError("the text holds half of a surrogate pair, which no tokenizer can read", "save it as UTF-8") from err
        return [token for part in text.split(CUT) if part for token in self._codec.encode(part)]

    def shield(self, text: str) -> str:
        """`text` with marks inside everything that would be read as a control token, for `encode(…, special=True)`.

        So content can be put into a template, encoded in one go with it as the model was trained, and still not end
        its own turn or open another. Text without such strings passes unchanged.
        """
        text = text.replace(CUT, "")
        if self._begins_special is None:
            return text
        cut = self._begins_special.sub(rf"\1{CUT}", text)
        # A normaliser may yet make a control token of, say, fullwidth letters: then no two characters stay together.
        control = set(self.special.values())
        return CUT.join(text) if control.intersection(self.encode(cut, special=True)) else cut

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some tokens that follow others. Invalid UTF-8 shows as �."""
        return b"".join(map(self._codec.token_bytes, ids)).decode("utf-8", "replace")

    def stream(self) -> Stream:
        """Decodes token by token; the pieces joined are what `decode` gives."""
        return Stream(self._codec.token_bytes)


class Stream:
    """Holds back the bytes of a character until it is whole."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that is certain now, possibly none."""
        return self._decoder.decode(self._token_bytes(token))

    def finish(self) -> str:
        """What is left: � where the last character never became whole."""
        return self._decoder.decode(b"", final=True)
