"""Lines and paragraphs → token ids → a model's inputs. Large files are read in a few places, never whole.

What a line means is evaluate/texts.py's, which calibration shares with evaluation.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, UsageError
from ...evaluate.texts import Encoder, Text
from ...generation.prompt import check_ids
from ...generation.special_tokens import declared
from ...model import Model
from ...runtime import count
from ...runtime.graphs import TensorSpec
from .inputs import Inputs, shown
from .sample import Sample, chosen

SUFFIXES = (".jsonl", ".json", ".txt")
#: Attention's scores grow with the square of this; ranges do not. (AWQ calibrates on 512, GPTQ on 2048.)
MOST_TOKENS = 1024
#: Larger files are not read whole: lines are taken from seeded places.
WHOLE_BYTES = 64 << 20
_LINE_BYTES = 1 << 20
_PIECE_CHARS = 4 * MOST_TOKENS
_EXAMPLE = 'one JSON object per line: {"prompt": "…", "answer": "…"} or {"text": "…"} or {"messages": […]}'
_KINDS = ("prompt", "text", "messages", "prompt_ids")


def read(file: Path, model: Model, inputs: Inputs, samples: int, seed: int) -> tuple[list[Sample], str]:
    """(samples, what they are in words). Raises InputError naming the line that is broken, UsageError where text is no input."""
    encoder = _opener(model)
    pieces = _paragraphs if file.suffix.lower() == ".txt" else _lines
    texts = [_encoded(line, where, encoder) for where, line in pieces(file, samples, seed)]
    if not texts:
        raise InputError(f"{file}: empty: it has no texts", _EXAMPLE)
    return fed(texts, model, inputs, encoder), f"{len(texts)} texts of {file}"


def embedded(lines: Sequence[Mapping[str, Any]], model: Model, inputs: Inputs, samples: int, seed: int) -> tuple[list[Sample], str]:
    """The same of lines that come with the package."""
    encoder = _opener(model)
    texts = [_encoded(line, "an embedded line", encoder) for line in chosen(lines, samples, seed)]
    return fed(texts, model, inputs, encoder), f"{len(texts)} of the {len(lines)} embedded calibration texts"


def _opener(model: Model) -> Callable[[], Encoder]:
    """Opens the model's tokenizer, once, when a line needs it: ids do not."""
    return cache(partial(Encoder, model.folder))


def fed(texts: Sequence[Text], model: Model, inputs: Inputs, encoder: Callable[[], Encoder]) -> list[Sample]:
    """Texts as samples for a model: of decoders `input_ids` alone, of encoders masks and types, too."""
    for spec in inputs.specs:
        if _rows_of(spec) is None:
            what = f"texts give no `{spec.name}` {spec.dtype} {shown(spec)}"
            raise UsageError(what, f"give arrays in an .npz file, by name: {inputs.names}")
    most = min(MOST_TOKENS, count(model, "max_position_embeddings", MOST_TOKENS))
    first, last, pad = ([], [], []) if inputs.decoder else _ends(model, encoder())
    samples = []
    for text in texts:
        ids = list(text.ids[:most]) if inputs.decoder else [*first, *text.ids[: most - len(first) - len(last)], *last]
        _check(ids, text.where, inputs)
        arrays = {spec.name: _row(spec, ids, (pad or [0])[0]) for spec in inputs.specs}
        samples.append(Sample(hashlib.sha256(repr(ids).encode()).hexdigest(), partial(dict, arrays), text))
    return samples


def _ends(model: Model, encoder: Encoder) -> tuple[list[int], ...]:
    """What an encoder is given before a text, behind it, and where its length is fixed: a token or none each."""
    named = declared(model.folder).named
    texts = (named.get(name, "") for name in ("cls_token", "sep_token", "pad_token"))
    return tuple([encoder.tokenizer.special[text]] if text in encoder.tokenizer.special else [] for text in texts)


def _check(ids: Sequence[int], where: str, inputs: Inputs) -> None:
    rows = inputs.rows.get("input_ids")
    if rows is not None and not all(0 <= token < rows for token in ids):
        wrong = next(token for token in ids if not 0 <= token < rows)
        raise InputError(f"{where}: token {wrong}, and the model knows 0 to {rows - 1}", "do the tokenizer and the model belong together?")


#: What text gives an input of that name, and what stands where it is padded. (Exports of transformers and Paddle call them so.)
_ROWS: dict[str, Callable[[Sequence[int]], Any]] = {
    "input_ids": lambda ids: ids,
    "attention_mask": lambda ids: np.ones(len(ids)),
    "token_type_ids|segment_ids|sent_ids|task_type_ids|task_ids": lambda ids: np.zeros(len(ids)),
    "position_ids|pos_ids": lambda ids: np.arange(len(ids)),
}


def _rows_of(spec: TensorSpec) -> Callable[[Sequence[int]], Any] | None:
    if spec.shape is None or len(spec.shape) != 2:
        return None
    return next((rows for names, rows in _ROWS.items() if re.fullmatch(names, spec.name.lower())), None)


def _row(spec: TensorSpec, ids: Sequence[int], pad: int) -> np.ndarray:
    """[1, S], or of the model's fixed rows and length, cut or padded."""
    values = _rows_of(spec)
    assert values is not None and spec.shape is not None
    rows, length = (axis if isinstance(axis, int) else free for axis, free in zip(spec.shape, (1, len(ids)), strict=True))
    row = np.full(length, pad if spec.name == "input_ids" else 0, np.int64)
    row[: len(ids)] = values(ids[:length])
    return np.tile(row, (rows, 1)).astype(spec.dtype or "int64")


# --- files ---------------------------------------------------------------------------------------------------------------


def _encoded(line: Mapping[str, Any], where: str, encoder: Callable[[], Encoder]) -> Text:
    if "messages" in line:
        text = encoder().talked(line, where)
    elif "text" in line:
        text = encoder().bare(line, where)
    elif "prompt_ids" in line:
        text = Text(tuple(check_ids(line["prompt_ids"], where)), where=where)
    elif "answer" in line:
        text = encoder().prompted(line, where)
    else:  # a prompt alone: what is read before an answer
        text = encoder().prompted({**line, "answer": ""}, where)
        text = Text(text.ids[: len(text.ids) - text.answer], where=where)
    if not text.ids:
        raise InputError(f"{where}: the text is empty", _EXAMPLE)
    return text


def _lines(file: Path, samples: int, seed: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if file.stat().st_size > WHOLE_BYTES:
        found = list(_places(file, samples, seed))
    else:
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
        found = [(f"{file}, line {at}", raw) for at, raw in enumerate(content.split(b"\n"), 1) if raw.strip()]
        for where, raw in found:  # every line is looked at, so that a broken file is one whatever the seed
            _parsed(raw, where)
    yield from ((where, _parsed(raw, where)) for where, raw in chosen(found, samples, seed))


def _parsed(raw: bytes, where: str) -> Mapping[str, Any]:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError) as err:
        reason = f"{err.msg} at character {err.colno}" if isinstance(err, json.JSONDecodeError) else str(err)
        raise InputError(f"{where}: not valid JSON: {reason}", _EXAMPLE) from err
    kinds = [kind for kind in _KINDS if isinstance(line, dict) and kind in line]
    if len(kinds) != 1:
        said = f"it has {', '.join(map(repr, list(line)[:5]))}"[:200] if isinstance(line, dict) and line else "it is no object with keys"
        raise InputError(f"{where}: one of `prompt`, `text`, `messages` is needed; {said}", _EXAMPLE)
    return dict(line)


def _paragraphs(file: Path, samples: int, seed: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if file.stat().st_size > WHOLE_BYTES:
        pieces = [(where, _decoded(raw, where)) for where, raw in _places(file, samples, seed)]
    else:
        text = _decoded(file.read_bytes(), str(file))
        found = [part.strip() for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n"))]
        parts = [part[at : at + _PIECE_CHARS] for part in found for at in range(0, len(part), _PIECE_CHARS)]
        pieces = [(f"{file}, paragraph {at}", part) for at, part in enumerate(parts, 1)]
    yield from ((where, {"text": text}) for where, text in chosen(pieces, samples, seed))


def _decoded(raw: bytes, where: str) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise InputError(f"{where}: not UTF-8 text: {err}", "save it as UTF-8") from err
    if "\0" in text:
        raise InputError(f"{where}: it holds zero bytes: not a text", "is it the right file?")
    return text


def _places(file: Path, samples: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Lines of a large file, each the first to begin behind a seeded place."""
    size, rng, seen = file.stat().st_size, random.Random(seed), set[int]()
    with file.open("rb") as handle:
        for place in sorted(rng.randrange(size) for _ in range(2 * samples)):
            handle.seek(place)
            handle.readline(_LINE_BYTES)  # the rest of the line that the place is in
            begin = handle.tell()
            raw = handle.readline(_LINE_BYTES)
            if begin in seen or not raw.strip():
                continue
            if len(raw) == _LINE_BYTES:
                raise InputError(f"{file}: a line of more than {_LINE_BYTES} bytes at byte {begin}", "one text per line is wanted")
            seen.add(begin)
            yield f"{file}, the line at byte {begin}", raw
