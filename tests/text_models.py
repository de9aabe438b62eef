"""Model folders with a tokenizer and no weights: enough for everything that the fake backend runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

CLS, SEP, EOS = "<|begin_of_sentence|>", "<|end_of_sentence|>", "</s>"
NAMED = {"bos_token": "<s>", "eos_token": EOS, "unk_token": "<unk>", "cls_token": CLS, "sep_token": SEP}
#: As ERNIE 4.5 publishes it, shortened.
TEMPLATE = (
    "{{ cls_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n' }}"
    "{% elif m.role == 'user' %}{{ 'User: ' + m.content + '\n' }}"
    "{% elif m.role == 'assistant' %}{{ 'Assistant: ' + m.content + sep_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
CORPUS = ["hello world User: what is one and two?\nAssistant: three", "你好 世界 中文 hello hello", "the end of the sentence"] * 20
KINDS = ("fallback", "byte-level", "sentencepiece", "sentencepiece-prefix")


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def fast(kind: str) -> Any:
    """A `tokenizers` tokenizer: BPE over characters with byte fallback (as ERNIE's), or over bytes (as GPT-2's)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<unk>", "<s>", EOS, CLS, SEP]
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet = []
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    if kind == "fallback":
        tokenizer.add_tokens([])
        tree = json.loads(tokenizer.to_str())
        first = len(tree["model"]["vocab"])
        tree["model"]["vocab"].update({f"<0x{byte:02X}>": first + byte for byte in range(256)})
        tokenizer = Tokenizer.from_str(json.dumps(tree))
    return tokenizer


def sentencepiece_model(dummy_prefix: bool = False) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=360,
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        user_defined_symbols=[CLS],
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def write_tokenizer(folder: Path, kind: str = "fallback") -> int:
    """Write a tokenizer of one of KINDS and its small files; returns how many ids it has.

    The sentencepiece ones hold one control token in the model (CLS) and one in added_tokens.json (SEP), as ERNIE's do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A class that no library has: the folder must open all the same.
    write_json(folder / "tokenizer_config.json", {**NAMED, "tokenizer_class": "Ernie4_5_Tokenizer", "chat_template": TEMPLATE})
    if kind.startswith("sentencepiece"):
        import sentencepiece

        model = sentencepiece_model(kind.endswith("prefix"))
        size = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
        (folder / "tokenizer.model").write_bytes(model)
        write_json(folder / "added_tokens.json", {SEP: size})
        write_json(folder / "special_tokens_map.json", {**NAMED, "additional_special_tokens": [SEP]})
        return size + 1
    tokenizer = fast(kind)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()


def write_model(folder: Path, kind: str = "fallback", *, template: bool = True, **config: Any) -> Path:
    """A folder that the fake backend runs."""
    size = write_tokenizer(folder, kind)
    if not template:
        write_json(folder / "tokenizer_config.json", NAMED)
    write_json(folder / "config.json", {"vocab_size": size, "max_position_embeddings": 4096, "eos_token_id": 2, **config})
    return folder
