"""What an engine of an ERNIE decoder looks like, and how tokens for some of its rows become runs of it.

Numbers alone: where the caches lie in memory and who runs the engine is tensorrt_decoder.py's. Rows are as in static.py: each stands at
a position of its own, and a row may be run along with others at rest: what it then writes lies behind its end, where nobody looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UnsupportedError, UsageError
from .static import runs
from .tensorrt_io import FREE, Port, Range

_CACHE, _CACHE_OUT = "cache.", "cache_out."

#: Runs neighbouring rows: (first row, input_ids int64 [count, S], positions int64 [count]) → logits [count, V] of their last tokens.
Run = Callable[[int, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Phase:
    """One way to run the decoder. profile: its number. batch: most rows at once. tokens: most new ones per row, and the fewest."""

    profile: int
    batch: int
    tokens: int
    fewest: int = 1


@dataclass(frozen=True)
class Layout:
    """caches: names of the cache's inputs; their outputs are `written(name)`. cache_dtype, heads, slots, head_dim: of each one's
    [rows, heads, slots, head_dim]. vocabulary: width of the logits; all_logits: one line per token, not per row. logits_dtype: their
    type. prompt, token: the phases for many tokens and for one, which may be the same.
    """

    caches: tuple[str, ...]
    cache_dtype: str
    heads: int
    slots: int
    head_dim: int
    vocabulary: int
    all_logits: bool
    logits_dtype: str
    prompt: Phase
    token: Phase

    def row_bytes(self, itemsize: int) -> int:
        """Bytes of one row of one cache."""
        return self.heads * self.slots * self.head_dim * itemsize

    def logits_per_row(self, tokens: int) -> int:
        """Lines of logits that a run with `tokens` new tokens gives for each row."""
        return tokens if self.all_logits else 1


def written(cache: str) -> str:
    """The output that holds an input cache's new content: `cache.0.key` → `cache_out.0.key`."""
    return cache.replace(_CACHE, _CACHE_OUT, 1)


def layout(ports: Sequence[Port], where: str) -> Layout:
    """The layout of a decoder's engine. Raises UnsupportedError where the inputs and outputs are not those of graph/cache.py."""
    known = {port.name: port for port in ports}
    caches = tuple(port.name for port in ports if port.is_input and port.name.startswith(_CACHE))
    wanted = ["input_ids", "positions", f"{_CACHE}0.key", "logits", *map(written, caches)]
    problems = [f"there is no `{name}`" for name in wanted if name not in known]
    problems += [f"`{port.name}` is unknown" for port in ports if port.name not in {*wanted, *caches}]
    if not problems:
        problems = _shapes(known, caches)
    if problems:
        what = f"{where}: not the engine of a decoder that `ernie build` made: {', '.join(problems[:4])}"
        raise UnsupportedError(what, "`ernie inspect` shows what this is; --inputs runs models that are no decoders")
    ids, cache, logits = known["input_ids"], known[caches[0]], known["logits"]
    prompt, token = _phases(ids.ranges, where)
    _, heads, slots, head_dim = cache.shape
    return Layout(
        caches, cache.dtype, heads, slots, head_dim, logits.shape[-1], len(logits.shape) == 3, logits.dtype, prompt, token
    )  # fmt: skip


def _shapes(known: dict[str, Port], caches: Sequence[str]) -> list[str]:
    """What is wrong with types and shapes."""
    shape = known[caches[0]].shape[1:]
    ids, positions, logits = known["input_ids"], known["positions"], known["logits"]
    said = [
        (ids.dtype != "int64" or len(ids.shape) != 2, "`input_ids` is no int64 [batch, sequence]"),
        (positions.dtype != "int64" or len(positions.shape) != 1, "`positions` is no int64 [batch]"),
        (logits.dtype not in ("float32", "float16", "bfloat16"), f"`logits` is {logits.dtype}"),
        (len(logits.shape) not in (2, 3) or logits.shape[-1] < 1, "`logits` is of unknown width"),
        (len(shape) != 3 or FREE in shape, f"`{caches[0]}` has no fixed length"),
        (any(port.on_host for port in known.values()), "some of it is read by the host"),
    ]
    problems = [text for wrong, text in said if wrong]
    odd = [
        name for name in (*caches, *map(written, caches)) if known[name].shape[1:] != shape or known[name].dtype != known[caches[0]].dtype
    ]
    return problems + [f"`{name}` is of another shape or type than `{caches[0]}`" for name in odd]


def _phases(ranges: Sequence[Range], where: str) -> tuple[Phase, Phase]:
    """(for prompts, for single tokens) from what each profile takes of `input_ids`."""
    found = [
        Phase(number, most[0], most[1], least[1]) for number, (least, most) in enumerate((each.least, each.most) for each in ranges)
        if least[0] == 1
    ]  # fmt: skip
    single = [phase for phase in found if phase.fewest == 1]
    if not single:
        raise UnsupportedError(
            f"{where}: no profile of it takes one token of one row", "build it again with `ernie build`, without --shape"
        )
    token = min(single, key=lambda phase: (phase.tokens, -phase.batch))
    return max(found, key=lambda phase: (phase.tokens, phase.batch)), token


def rows_of(made: Layout, wanted: int, itemsize: int, alignment: int) -> int:
    """How many rows a session may have: `wanted`, checked. Raises UsageError for more than the engine takes."""
    most = made.token.batch
    if wanted > most:
        kept = f"{most} conversation{'s' if most > 1 else ''} at a time"
        raise UsageError(f"the engine was built for {kept}, not {wanted}", f"--batch-size {most}, or build it again with --batch {wanted}")
    if wanted > 1 and made.row_bytes(itemsize) % alignment:
        every = alignment // math.gcd(alignment, made.heads * made.head_dim * itemsize)
        fitting = -(-made.slots // every) * every
        what = f"rows of {made.slots} slots do not begin where TensorRT wants them"
        raise UsageError(what, f"--batch-size 1, or build it again with --context {fitting}")
    return wanted


def pieces(tokens: int, made: Layout) -> list[tuple[int, int]]:
    """Cut a prompt of so many tokens: (start, stop) of each piece, each fit for a phase."""
    prompt, found, at = made.prompt, list[tuple[int, int]](), 0
    while at < tokens:
        left = tokens - at
        size = min(left, prompt.tokens) if left >= prompt.fewest and left > 1 else min(left, made.token.tokens)
        found.append((at, at + size))
        at += size
    return found


def phase_of(tokens: int, made: Layout) -> Phase:
    """What runs a piece of so many tokens."""
    return made.token if tokens <= made.token.tokens else made.prompt


def parts(rows: Sequence[int], tokens: int, ends: Sequence[int], made: Layout) -> list[tuple[int, int]]:
    """The runs for a piece of `tokens` new ones on `rows`: (first row, how many). Caches are bound as neighbours only.

    ends: for every row of the session, where its content ends at most. Single tokens run on all rows at once, those at rest included,
    where that saves a run or costs little: weights are read once per run. Never where a row at rest has no slot left to be written.
    """
    phase, batch = phase_of(tokens, made), len(ends)
    alone = [
        (at, min(phase.batch, last + 1 - at)) for first, last in runs(list(rows)) for at in range(first, last + 1, phase.batch)
    ]  # fmt: skip
    room = all(row in rows or end + tokens <= made.slots for row, end in enumerate(ends))
    worth = len(alone) > 1 or 2 * alone[0][1] > batch
    return [(0, batch)] if tokens == 1 and batch <= phase.batch and room and worth else alone


def filled(
    first: int, count: int, rows: Sequence[int], tokens: np.ndarray, starts: Sequence[int], ends: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(input_ids int64 [count, S], positions int64 [count]) of a part. tokens: int64 [len(rows), S] and starts: of `rows`.

    Rows at rest get token 0 behind their end.
    """
    ids, positions = np.zeros((count, tokens.shape[1]), np.int64), np.array(ends[first : first + count], np.int64)
    for given, row, start in zip(tokens, rows, starts, strict=True):
        if first <= row < first + count:
            ids[row - first], positions[row - first] = given, start
    return ids, positions


def step(made: Layout, ends: list[int], tokens: np.ndarray, rows: Sequence[int], lengths: Sequence[int], run: Run) -> np.ndarray:
    """tokens int64 [n, S] for `rows`, of which `lengths` counts → logits float32 [n, V] of the last ones. ends: see `parts`; kept up."""
    logits = np.empty((len(rows), made.vocabulary), np.float32)
    for start, stop in pieces(tokens.shape[1], made):
        starts, piece = [length + start for length in lengths], tokens[:, start:stop]
        for first, count in parts(rows, stop - start, ends, made):
            found = run(first, *filled(first, count, rows, piece, starts, ends))
            for place, row in enumerate(rows):
                if first <= row < first + count:
                    logits[place] = found[row - first]
        for row, length in zip(rows, starts, strict=True):
            ends[row] = length + stop - start
    return logits
