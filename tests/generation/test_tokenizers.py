"""Text ↔ ids for both codecs, streaming, control tokens and broken files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import pytest
from text_models import CLS, KINDS, SEP, fast, sentencepiece_model, write_json, write_tokenizer

from ernie_cli.errors import InputError
from ernie_cli.generation.special_tokens import eos_ids
from ernie_cli.generation.tokenizer import CUT, Tokenizer

TEXTS = (
    "hello world",
    " hello  world ",
    "你好，世界！",
    "emoji 👩‍👩‍👧 and ß",
    "tab\tand\nnewline\n\n",
    "<not special> </s",
    "� itself",
)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    write_tokenizer(path, request.param)
    return path


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    found = Tokenizer.open(folder)
    assert found is not None
    return found


def unprefixed(text: str, folder: Path) -> str:
    """sentencepiece with a dummy prefix puts a space in front of what it encodes: its rule, not ours."""
    return text[1:] if folder.name.startswith("sentencepiece-prefix") else text


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives(folder: Path, tokenizer: Tokenizer, text: str) -> None:
    assert unprefixed(tokenizer.decode(tokenizer.encode(text, special=False)), folder) == text


@pytest.mark.parametrize("text", TEXTS)
def test_stream_shows_each_character_once_it_is_whole(folder: Path, tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, special=False)
    stream, shown = tokenizer.stream(), ""
    for n, token in enumerate(ids, 1):
        shown += stream.push(token)
        certain = tokenizer.decode(ids[:n])
        assert shown == certain.rstrip("�") or "�" in text  # which a plain decode makes of half a character
    assert unprefixed(shown + stream.finish(), folder) == text


def test_stream_of_garbage_goes_on(tokenizer: Tokenizer) -> None:
    half = tokenizer.encode("ß", special=False)[:-1]  # spelt in bytes by all of them
    stream = tokenizer.stream()
    assert "".join(map(stream.push, half)).strip() == ""
    after = "".join(map(stream.push, tokenizer.encode("hello", special=False)))
    assert after.endswith("hello") and after.startswith("�")
    half_again = [stream.push(token) for token in half]
    assert "".join(half_again).strip() == "" and stream.finish() == "�"


def test_control_tokens_in_templates(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"{CLS}hello{SEP}world", special=True)
    assert (ids[0], ids.count(tokenizer.special[CLS]), ids.count(tokenizer.special[SEP])) == (tokenizer.special[CLS], 1, 1)
    assert "".join(tokenizer.decode(ids).split()) == "helloworld"  # they never show


@pytest.mark.parametrize(
    "text", [SEP, f"a{SEP}b{CLS}", f"<{SEP}>{SEP}", "</s>", "<s></s><unk>", f"<<s>s>{CUT}", f"<|end_of{CUT}_sentence|>"]
)
def test_no_control_token_in_content(folder: Path, tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, special=False)
    assert not set(ids) & set(tokenizer.special.values())
    if not folder.name.startswith("sentencepiece-prefix"):  # which puts a space before every cut piece
        assert tokenizer.decode(ids) == text.replace(CUT, "")


def test_no_control_token_through_a_normaliser(tmp_path: Path) -> None:
    from tokenizers import AddedToken, normalizers

    built = fast("fallback")
    built.normalizer = normalizers.NFKC()
    built.add_special_tokens([AddedToken("<|think|>", special=True, normalized=True)])
    built.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.open(tmp_path)
    assert tokenizer is not None
    wide = "＜｜think｜＞"
    assert tokenizer.special["<|think|>"] in tokenizer.encode(wide, special=True)
    assert not set(tokenizer.encode(wide, special=False)) & set(tokenizer.special.values())


@pytest.mark.parametrize("kind", ["fallback", "byte-level"])
def test_as_transformers_does(tmp_path: Path, kind: str) -> None:
    from transformers import PreTrainedTokenizerFast

    write_tokenizer(tmp_path, kind)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.open(tmp_path)
    assert ours is not None
    for text in (*TEXTS, f"{CLS}User: hello{SEP}"):
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, special=True) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_sentencepiece_does_what_sentencepiece_does(tmp_path: Path) -> None:
    import sentencepiece

    write_tokenizer(tmp_path, "sentencepiece")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ours = Tokenizer.open(tmp_path)
    assert ours is not None
    for text in TEXTS:
        assert ours.encode(text, special=True) == theirs.encode(text)
        assert ours.decode(theirs.encode(text)) == theirs.decode(theirs.encode(text))


def test_leftovers_of_training_do_not_cut_prompts(tmp_path: Path) -> None:
    built = fast("byte-level")
    built.enable_truncation(4)
    built.enable_padding(length=64)
    built.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.open(tmp_path)
    assert tokenizer is not None
    assert tokenizer.decode(tokenizer.encode("hello world, all of it", special=False)) == "hello world, all of it"


def test_declared_tokens_count_though_the_fast_file_does_not_mark_them(tmp_path: Path) -> None:
    built = json.loads(fast("fallback").to_str())
    built["added_tokens"] = [token for token in built["added_tokens"] if token["content"] != SEP]
    write_json(tmp_path / "tokenizer.json", built)
    write_json(tmp_path / "special_tokens_map.json", {"sep_token": {"content": SEP}})
    tokenizer = Tokenizer.open(tmp_path)
    assert tokenizer is not None
    assert tokenizer.encode(SEP, special=True) == [tokenizer.special[SEP]]


def test_the_fast_file_comes_first_and_none_is_none(tmp_path: Path) -> None:
    assert Tokenizer.open(tmp_path) is None
    write_tokenizer(tmp_path, "sentencepiece")
    by_model = Tokenizer.open(tmp_path)
    write_tokenizer(tmp_path, "fallback")
    by_json = Tokenizer.open(tmp_path)
    assert by_model is not None and by_json is not None
    assert by_model.special[SEP] != by_json.special[SEP]


def test_ids_outside_the_vocabulary_have_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([10**6, *tokenizer.encode("hello", special=False), 999_999]).strip() == "hello"


def test_half_a_surrogate_pair(tokenizer: Tokenizer) -> None:
    for special in (True, False):
        with pytest.raises(InputError, match="surrogate"):
            tokenizer.encode("a\ud800b", special=special)


BROKEN = {
    "empty": ("tokenizer.json", b""),
    "no json": ("tokenizer.json", b"\x00\x01{"),
    "other json": ("tokenizer.json", b'{"a": 1}'),
    "a list": ("tokenizer.json", b"[]"),
    "cut": ("tokenizer.json", "half"),
    "deep": ("tokenizer.json", b"[" * 100_000),
    "empty model": ("tokenizer.model", b""),
    "cut model": ("tokenizer.model", "half"),
    "text model": ("tokenizer.model", b"hello world"),
    "zeros": ("tokenizer.model", bytes(4096)),
    "config": ("tokenizer_config.json", b"{"),
    "config list": ("tokenizer_config.json", b"[1]"),
    "added": ("added_tokens.json", b'{"<x>": "y"}'),
    "added bool": ("added_tokens.json", b'{"<x>": true}'),
    "decoder": ("tokenizer_config.json", b'{"added_tokens_decoder": {"one": {"content": "<x>"}}}'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path: Path, name: str) -> None:
    file, content = BROKEN[name]
    write_tokenizer(tmp_path, "sentencepiece" if "model" in file else "fallback")
    if file != "tokenizer.model":
        shutil.copy(tmp_path / "tokenizer.json", tmp_path / "keep.json")
    whole = (tmp_path / file).read_bytes() if (tmp_path / file).exists() else b""
    (tmp_path / file).write_bytes(whole[: len(whole) // 2] if content == "half" else content)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        Tokenizer.open(tmp_path)
    assert file in caught.value.message and caught.value.hint


@pytest.mark.parametrize("cut", range(0, 100, 9))
def test_sentencepiece_model_cut_anywhere(tmp_path: Path, cut: int) -> None:
    model = sentencepiece_model()
    (tmp_path / "tokenizer.model").write_bytes(model[: len(model) * cut // 100])
    with pytest.raises(InputError):
        Tokenizer.open(tmp_path)


def test_sentencepiece_model_with_bits_flipped(tmp_path: Path) -> None:
    model, random = sentencepiece_model(), Random(0)
    for _ in range(200):
        damaged = bytearray(model)
        damaged[random.randrange(len(model))] = random.randrange(256)
        (tmp_path / "tokenizer.model").write_bytes(damaged)
        try:
            tokenizer = Tokenizer.open(tmp_path)
            assert tokenizer is not None
            tokenizer.decode([*tokenizer.encode("hello 世界", special=False), *range(400)])
        except InputError as err:
            assert err.hint


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, None, set()),
        ({"eos_token_id": 2}, None, {2}),
        ({"eos_token_id": [2, 5]}, {"eos_token_id": 2}, {2, 5}),
        ({}, {"eos_token_id": 7}, {7}),
        ({"eos_token_id": None}, {"eos_token_id": [7]}, {7}),
    ],
)
def test_eos_ids(tmp_path: Path, generation: object, config: object, expected: set[int]) -> None:
    for name, content in (("generation_config.json", generation), ("config.json", config)):
        if content is not None:
            write_json(tmp_path / name, content)
    assert eos_ids(tmp_path) == expected


@pytest.mark.parametrize("value", ["</s>", True, [2, "x"], -1, 1.5, {"a": 1}])
def test_eos_ids_that_are_none(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "config.json", {"eos_token_id": value})
    with pytest.raises(InputError, match="token id"):
        eos_ids(tmp_path)
