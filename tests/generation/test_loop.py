"""One reply: where it ends, what of it is shown, and what the cache is used for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from text_models import write_model

from ernie_cli.errors import InputError, QualityError, UsageError
from ernie_cli.generation.loop import CHUNK, Row, generate
from ernie_cli.generation.reply import Options, Reply
from ernie_cli.generation.speaker import Speaker
from ernie_cli.generation.stop import StopFilter
from ernie_cli.runtime import Session

Speak = Callable[..., Speaker]


def plain(session: Session, prompt: Sequence[int], count: int) -> list[int]:
    """Greedy tokens the obvious way."""
    session.truncate(0, 0)
    logits = session.step(np.array([prompt]), [0])
    tokens = []
    for _ in range(count):
        tokens.append(int(logits[0].argmax()))
        logits = session.step(np.array([tokens[-1:]]), [0])
    session.truncate(0, 0)
    return tokens


def shown(speaker: Speaker, prompt: Sequence[int]) -> tuple[str, Reply]:
    pieces: list[str] = []
    reply = speaker.answer(prompt, pieces.append)
    return "".join(pieces), reply


def test_tokens_are_those_of_the_model(speak: Speak) -> None:
    speaker = speak(max_tokens=50, ignore_eos=True)
    text, reply = shown(speaker, [5, 6, 7])
    assert reply.token_ids == plain(speaker.session, [5, 6, 7], 50)
    assert (reply.finish_reason, reply.text) == ("length", text)
    assert text == speaker.prompter.tokenizer.decode(reply.token_ids)


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_long_prompts_go_in_chunks(speak: Speak, length: int) -> None:
    speaker = speak(max_tokens=5, ignore_eos=True)
    prompt = [token % 200 for token in range(length)]
    steps: list[int] = []
    original = speaker.session.step

    def counted(tokens: np.ndarray, rows: Sequence[int] | None = None) -> np.ndarray:
        steps.append(tokens.shape[1])
        return original(tokens, rows)

    speaker.session.step = counted
    _, reply = shown(speaker, prompt)
    assert max(steps) <= CHUNK and sum(steps) == length + 4  # nothing is asked after the last token
    assert reply.token_ids == plain(speaker.session, prompt, 5)


def test_end_token(speak: Speak, model: Path) -> None:
    free = speak(max_tokens=400, ignore_eos=True)
    tokens = shown(free, [5, 6, 7])[1].token_ids
    eos = tokens[10]
    folder = write_model(model.parent / "other-eos", eos_token_id=[eos, 3])
    _, reply = shown(speak(folder, max_tokens=400), [5, 6, 7])
    ends = set(tokens[: len(reply.token_ids) - 1])
    assert reply.finish_reason == "stop" and reply.token_ids == tokens[: len(reply.token_ids)]
    assert reply.token_ids[-1] in (eos, 3) and not ends & {eos, 3}
    assert len(shown(speak(folder, max_tokens=400, ignore_eos=True), [5, 6, 7])[1].token_ids) == 400


@pytest.mark.parametrize("width", [1, 2, 5])
def test_stop_string_is_cut_out(speak: Speak, width: int) -> None:
    whole, _ = shown(speak(max_tokens=60, ignore_eos=True), [5, 6, 7])
    for at in range(0, len(whole) - width, 3):
        stop = whole[at : at + width]
        text, reply = shown(speak(max_tokens=60, ignore_eos=True, stop=("never", stop)), [5, 6, 7])
        assert text == reply.text == whole[: whole.index(stop)]
        assert reply.finish_reason == "stop"


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["a", "b", "c"], ["bc"], ["a", "", ""]),
        (["a", "b", "d"], ["bc"], ["a", "", "bd"]),
        (["ab", "ab", "abc"], ["abc"], ["", "ab", "ab"]),
        (["x\n", "\nUser", ": "], ["\n\nUser:"], ["x", "", ""]),
        (["abc"], ["c", "b"], ["a"]),
        (["aa", "aa", "b"], ["aab"], ["", "aa", ""]),
        (["no", "thing"], [], ["no", "thing"]),
        (["a", "bcd", "more"], ["cd", "bc"], ["a", "", ""]),
    ],
)
def test_text_is_held_back_while_it_may_become_a_stop_string(pieces: list[str], stops: list[str], expected: list[str]) -> None:
    stop = StopFilter(stops)
    assert [stop.push(piece) for piece in pieces] == expected


def test_held_text_is_shown_at_the_end() -> None:
    stop = StopFilter(["abc"])
    assert (stop.push("xab"), stop.finish(), stop.finish()) == ("x", "ab", "")


@pytest.mark.parametrize(("prompt", "context", "expected"), [(10, 10, 1), (9, 10, 2), (1, 10, 10), (10, 1000, 20)])
def test_context_full(speak: Speak, prompt: int, context: int, expected: int) -> None:
    _, reply = shown(speak(context=context, ignore_eos=True), [5] * prompt)
    assert (len(reply.token_ids), reply.finish_reason) == (expected, "length")


def test_prompt_longer_than_the_context(speak: Speak) -> None:
    with pytest.raises(UsageError, match="11 tokens, and the context holds 10") as caught:
        speak(context=10).prompter.ids([5] * 11, "the prompt")
    assert "--context" in caught.value.hint


def test_prompt_outside_the_vocabulary(speak: Speak) -> None:
    for token in (-1, 10**6):
        with pytest.raises(InputError, match=f"token {token}"):
            speak().prompter.ids([1, token], "the prompt")


def test_no_more_tokens_than_asked(speak: Speak) -> None:
    assert len(shown(speak(max_tokens=1, ignore_eos=True), [1, 2])[1].token_ids) == 1
    assert len(shown(speak(max_tokens=None, context=40, ignore_eos=True), [1, 2])[1].token_ids) == 39


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"max_tokens": -3}, {"stop": ("a", "")}])
def test_options_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Options(**wrong)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_interrupted(speak: Speak, after: int) -> None:
    speaker = speak(max_tokens=100, ignore_eos=True)
    reply = speaker.reply([5, 6, 7])
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > after

    text = "".join(generate(Row(speaker.session), reply, stop))
    assert reply.finish_reason == "interrupted" and reply.text == text
    assert len(reply.token_ids) == after


def test_a_row_runs_only_what_is_new(speak: Speak) -> None:
    speaker = speak(ignore_eos=True)
    row = Row(speaker.session)
    for prompt, run in (([1, 2, 3], 3), ([1, 2, 3, 4], 1), ([1, 2, 9], 1), ([1, 2, 9], 1), ([7], 1), ([7, 8], 1)):
        logits, computed = row.feed(prompt)
        speaker_session_length = speaker.session.length(0)
        assert (computed, speaker_session_length) == (run, len(prompt))
        fresh = Row(speak().session).feed(prompt)[0]
        assert logits is not None and fresh is not None
        np.testing.assert_array_equal(logits, fresh)


def test_a_row_recovers_from_a_step_that_broke_off(speak: Speak) -> None:
    speaker = speak(ignore_eos=True)
    row = Row(speaker.session)
    row.feed([1, 2, 3])
    speaker.session.step(np.array([[9, 9]]), [0])  # the session got further than the row knows
    logits, computed = row.feed([1, 2, 3, 4])
    assert computed == 1 and speaker.session.length(0) == 4
    np.testing.assert_array_equal(logits, Row(speak().session).feed([1, 2, 3, 4])[0])


def test_broken_logits_end_the_run(speak: Speak) -> None:
    speaker = speak()
    original = speaker.session.step

    def broken(tokens: np.ndarray, rows: Sequence[int] | None = None) -> np.ndarray:
        return original(tokens, rows) * np.float32("nan")

    speaker.session.step = broken
    with pytest.raises(QualityError):
        shown(speaker, [1, 2])


def test_without_a_tokenizer(tmp_path: Path, speak: Speak) -> None:
    speaker = speak(tmp_path, ignore_eos=True)
    text, reply = shown(speaker, [65, 66])
    assert (text, reply.text, len(reply.token_ids)) == ("", None, 20)
    with pytest.raises(InputError, match="no tokenizer"):
        speaker.prompter.text("hi")
    with pytest.raises(UsageError, match="--stop"):
        speak(tmp_path, stop=("x",)).reply([1])
