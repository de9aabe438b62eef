"""`tokenizer.model` through sentencepiece, with the added tokens that its neighbours declare. tokenizer.py does the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import InputError
from .special_tokens import Declared


class SentencePieceCodec:
    """`special`: text → id of the control tokens."""

    def __init__(self, file: Path, declared: Declared) -> None:
        self._file = file
        self._model = _load(file)
        self._size = int(self._model.get_piece_size())
        known = {text: self._id(text, declared) for text in (*declared.added, *declared.special)}
        self._added = {text: i for text, i in known.items() if i is not None}
        self._texts = {i: text for text, i in self._added.items()}
        self.special = {text: i for text, i in self._added.items() if text in declared.special}
        self._control = frozenset(self.special.values())
        longest_first = sorted(self._added, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None

    def _id(self, text: str, declared: Declared) -> int | None:
        if text in declared.added:
            return declared.added[text]
        found = int(self._model.piece_to_id(text))  # the id of <unk> where there is no such piece
        return found if self._piece(found) == text else None

    def _piece(self, token: int) -> str:
        try:
            return str(self._model.id_to_piece(token))
        except UnicodeDecodeError as err:
            raise InputError(f"{self._file}: piece {token} is not UTF-8: {err}", "the file is damaged: fetch it again") from err

    def encode(self, text: str) -> list[int]:
        """Token ids; control and added tokens in the text are recognised, none is added."""
        ids: list[int] = []
        for part in self._split.split(text) if self._split else [text]:
            if part in self._added:
                ids.append(self._added[part])
            elif part:
                ids.extend(self._model.encode(part))
        return ids

    def token_bytes(self, token: int) -> bytes:
        """What the token adds to a text that it does not begin; b"" for control tokens and unknown ids."""
        if token in self._control:
            return b""
        if token in self._texts:
            return self._texts[token].encode()
        if not 0 <= token < self._size or self._model.is_control(token) or self._model.is_unknown(token):
            return b""
        piece = self._piece(token)
        if self._model.is_byte(token):
            return bytes.fromhex(piece[3:5])  # <0xE4>
        return piece.replace("▁", " ").encode()


def _load(file: Path) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (RuntimeError, OSError, UnicodeDecodeError) as err:
        raise InputError(f"{file}: not a sentencepiece model: {err}", "fetch the file again, or convert again from a whole model") from err
