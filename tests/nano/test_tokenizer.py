"""Both forms of the tokenizer give the same ids, and give every text back."""

import json
from itertools import islice
from random import Random

import pytest

from ernie_cli import nano
from ernie_cli.nano import chat, data
from ernie_cli.nano.tokenizer import CLS_ID, EOS_ID, SEP_ID, UNK_ID, VOCAB_SIZE, Tokenizer

TRICKY = [
    "",
    " ",
    "   ",
    " lead",
    "trail ",
    "two  spaces   three",
    "\n",
    "\n\n a\n\tb\r\n",
    "🙂 🙂🙂 👩‍👩‍👧",
    "中文，没见过的字：龘靐齉",
    "e\u0301 é ﬁ Å Ω",
    "aaa aaaa aaaaaaa",
    "12345 007 1+1=2",
    "<s>a</s> b<|begin_of_sentence|>c<|end_of_sentence|>",
    "<|end_of_sentence|> <|end_of_sentence",
    "العربية עברית ไทย हिन्दी",
    "\u200b\ufeff\x01\x7f",
]


@pytest.fixture(scope="module")
def fast() -> Tokenizer:
    return Tokenizer(nano.path())


@pytest.fixture(scope="module")
def slow():
    spm = pytest.importorskip("sentencepiece")
    return spm.SentencePieceProcessor(model_file=str(nano.path() / "tokenizer.model"))


def texts() -> list[str]:
    lines = [chat.prompt_text(line) + chat.answer_text(line) for line in nano.heldout()]
    return TRICKY + lines + [line["text"] for line in nano.calibration()]


def test_both_forms_give_the_same_ids(fast, slow):
    for text in texts():
        assert fast.encode(text) == slow.encode(text), text


def test_both_forms_agree_on_noise(fast, slow):
    rng = Random(0)
    alphabet = " aabcest?:=+0123\n多少是的月反义🙂é"
    for _ in range(500):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(40)))
        assert fast.encode(text) == slow.encode(text), text


def test_every_text_comes_back(fast, slow):
    for text in texts():
        assert fast.decode(fast.encode(text)) == text
        assert slow.decode(slow.encode(text)) == text


def test_special_tokens_have_the_ids_of_the_family(fast, slow):
    assert (UNK_ID, EOS_ID) == (0, 2)
    assert fast.encode("<s></s>" + chat.CLS + chat.SEP) == [1, EOS_ID, CLS_ID, SEP_ID]
    assert slow.get_piece_size() == VOCAB_SIZE
    assert json.loads((nano.path() / "added_tokens.json").read_text(encoding="utf-8")) == {chat.CLS: CLS_ID, chat.SEP: SEP_ID}


def test_the_tokenizer_adds_no_bos(fast, slow):
    assert fast.encode("") == slow.encode("") == []


CHATS = {
    "one turn": (
        [{"role": "user", "content": "12 + 7 ="}],
        "<|begin_of_sentence|>User: 12 + 7 =\nAssistant: ",
    ),
    "system and two turns": (
        [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": "法国的首都是"},
            {"role": "assistant", "content": "巴黎"},
            {"role": "user", "content": "{x} and {}?"},
        ],
        "<|begin_of_sentence|>Answer briefly.\nUser: 法国的首都是\nAssistant: 巴黎<|end_of_sentence|>User: {x} and {}?\nAssistant: ",
    ),
}


@pytest.mark.parametrize("name", CHATS)
def test_the_template_and_the_training_form_are_one(name):
    sandbox = pytest.importorskip("jinja2.sandbox")
    messages, expected = CHATS[name]
    settings = json.loads((nano.path() / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(settings["chat_template"])
    tokens = {"cls_token": settings["cls_token"], "sep_token": settings["sep_token"]}
    assert template.render(messages=messages, add_generation_prompt=True, **tokens) == expected == chat.render(messages)
    assert template.render(messages=messages, add_generation_prompt=False, **tokens) == chat.render(messages, False)
    assert template.render(messages=messages) == expected


def test_training_texts_need_few_bytes(fast):
    """The vocabulary was made for these texts: hardly a byte token but the line feed."""
    texts = ["".join(part.text for part in parts) for parts in islice(data.training_stream(1), 200)]
    ids = [i for text in texts for i in fast.encode(text.replace("\n", ""))]
    assert sum(SEP_ID < i <= SEP_ID + 256 for i in ids) / len(ids) < 0.01
