"""nano's own BPE, in the two forms ERNIE 4.5 is published with: sentencepiece and fast `tokenizer.json`.

Trains with sentencepiece; the fast form is derived from it, piece by piece, so the ids are the same. They agree on every
text but the literal `<unk>`, which the fast form reads as the special token and sentencepiece spells out.
"""

import importlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .chat import CHAT_TEMPLATE, CLS, SEP

VOCAB_SIZE = 1536
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
UNK_ID, BOS_ID, EOS_ID, CLS_ID, SEP_ID = 0, 1, 2, 3, 4  # the first three as in the family; unk is also pad
_SPACE = "▁"  # U+2581, how sentencepiece writes a space

SPECIAL_TOKENS = {
    "bos_token": BOS,
    "eos_token": EOS,
    "unk_token": UNK,
    "pad_token": UNK,
    "cls_token": CLS,
    "sep_token": SEP,
}


def train(texts: Iterable[str]) -> bytes:
    """The sentencepiece model (BPE, byte fallback, nothing normalised) trained on lines of text."""
    # Through importlib: sentencepiece ships no types.
    spm: Any = importlib.import_module("sentencepiece")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,  # one token per digit: arithmetic is learnt digit by digit
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        unk_id=UNK_ID,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        pad_id=-1,
        # User-defined rather than control symbols: then sentencepiece finds them in a text, as the fast form does.
        user_defined_symbols=[BOS, EOS, CLS, SEP],
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def fast(model: bytes) -> dict[str, Any]:
    """The same tokenizer as a `tokenizer.json` tree.

    A merge is any split of a piece into two pieces, ranked by the id of the result: sentencepiece numbers its pieces in
    the order of their merges (the derivation transformers uses for Llama).
    """
    spm: Any = importlib.import_module("sentencepiece")
    processor = spm.SentencePieceProcessor(model_proto=model)
    vocab = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    plain = {piece: i for piece, i in vocab.items() if i > SEP_ID and not processor.is_byte(i)}
    merges = [
        [piece[:cut], piece[cut:]]
        for piece, _ in sorted(plain.items(), key=lambda item: -processor.get_score(item[1]))
        for cut in sorted(range(1, len(piece)), key=lambda cut: (plain.get(piece[:cut], 0), plain.get(piece[cut:], 0)))
        if piece[:cut] in plain and piece[cut:] in plain
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": piece, **flags} for piece, i in vocab.items() if i <= SEP_ID],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNK,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def write(model: bytes, folder: Path) -> None:
    """Write both forms and the three small files the family publishes beside them."""

    def dump(name: str, content: dict[str, Any], indent: int | None = 2) -> None:
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")

    (folder / "tokenizer.model").write_bytes(model)
    dump("tokenizer.json", fast(model), indent=None)
    dump("special_tokens_map.json", SPECIAL_TOKENS)
    dump("added_tokens.json", {CLS: CLS_ID, SEP: SEP_ID})
    settings = {
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
        "tokenizer_class": "Ernie4_5_Tokenizer",
        "chat_template": CHAT_TEMPLATE,
    }
    dump("tokenizer_config.json", {**SPECIAL_TOKENS, **settings})


class Tokenizer:
    """The fast form behind two methods. Adds no special token of its own; finds those spelled out in a text."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer as Fast

        self._fast = Fast.from_file(str(folder / "tokenizer.json"))

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = self._fast.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of some ids, special tokens spelled out."""
        text: str = self._fast.decode(ids, skip_special_tokens=False)
        return text
