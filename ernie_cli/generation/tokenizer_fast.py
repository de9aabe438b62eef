"""`tokenizer.json` through the `tokenizers` library: text to ids, and each id to its bytes. tokenizer.py does the rest.

Bytes rather than text, because a character may be split across tokens: joined bytes decode right however they were split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, Terminated
from .special_tokens import Declared

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
#: Text that may serve as what stands before a token: the first whose tokens are whole characters.
_ANCHORS = ("a", "0", ".", "的")


class FastCodec:
    """`special`: text → id of the control tokens."""

    def __init__(self, file: Path, declared: Declared) -> None:
        self._file = file
        with _translated(file):
            self._open(declared)

    def _open(self, declared: Declared) -> None:
        import tokenizers

        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(self._file))
        self._tokenizer.no_truncation()  # a file may carry both, left over from training
        self._tokenizer.no_padding()
        self.special = self._specials(declared)
        self._control = frozenset(self.special.values())
        self._plain = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if not token.special}
        kinds = _decoder_kinds(self._tokenizer)
        self._byte_level = _byte_alphabet() if "ByteLevel" in kinds else {}
        self._byte_fallback = "ByteFallback" in kinds
        self._anchor = self._find_anchor()
        self._anchor_text = self._tokenizer.decode(self._anchor)
        self._known: dict[int, bytes] = {}

    def _specials(self, declared: Declared) -> dict[str, int]:
        """Those the file marks, plus those its neighbours declare and its vocabulary holds (as transformers adds them)."""
        from tokenizers import AddedToken

        ids = {text: self._tokenizer.token_to_id(text) for text in declared.special}
        present = [AddedToken(text, special=True, normalized=False) for text, i in ids.items() if i is not None]
        self._tokenizer.add_special_tokens(present)
        return {token.content: i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}

    def _find_anchor(self) -> list[int]:
        for text in _ANCHORS:
            encoded = self._tokenizer.encode(text, add_special_tokens=False)
            if encoded.ids and not any(_BYTE.fullmatch(piece) for piece in encoded.tokens):
                return list(encoded.ids)
        return []

    def encode(self, text: str) -> list[int]:
        """Token ids; control tokens in the text are recognised, none is added."""
        with _translated(self._file):
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def token_bytes(self, token: int) -> bytes:
        """What the token adds to a text that it does not begin; b"" for control tokens and unknown ids."""
        if token not in self._known:
            self._known[token] = self._bytes(token)
        return self._known[token]

    def _bytes(self, token: int) -> bytes:
        piece = self._tokenizer.id_to_token(token)
        if piece is None or token in self._control:
            return b""
        byte = _BYTE.fullmatch(piece) if self._byte_fallback else None
        if byte:
            return bytes.fromhex(byte[1])
        if token in self._plain:
            return str(piece).encode()
        if self._byte_level:
            return b"".join(self._byte_level.get(char) or char.encode() for char in piece)
        # After an anchor, so that a rule for the beginning of a text (drop the leading space) does not apply.
        return str(self._tokenizer.decode([*self._anchor, token]))[len(self._anchor_text) :].encode()


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, Terminated, MemoryError):
        raise
    except BaseException as err:  # the library raises bare Exceptions, and where it panics what is none
        raise InputError(f"{file}: not a tokenizer: {err}", "fetch the file again, or convert again from a whole model") from err


def _decoder_kinds(tokenizer: Any) -> set[str]:
    """The types named in the decoder, a tree that only its JSON form shows."""
    if tokenizer.decoder is None:
        return set()
    tree = json.loads(tokenizer.decoder.__getstate__())
    return {tree["type"], *(part["type"] for part in tree.get("decoders", []))}


def _byte_alphabet() -> dict[str, bytes]:
    """The characters that byte-level BPE writes bytes as: printable ones stand for themselves, the others follow from 256 on.

    Source: bytes_to_unicode in https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): bytes([byte]) for byte in printable}
    return alphabet | {chr(256 + n): bytes([byte]) for n, byte in enumerate(others)}
