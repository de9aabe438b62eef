"""How fast two models run on this machine: in turns, warmed up, medians. Whether their answers are right is quality.py's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from ... import console, host
from ...errors import UnsupportedError, UsageError
from ...model import Model
from .files import fit_together, is_decoder

#: A decoder's round: a prompt of so many tokens, then so many more one by one. What tables of such models commonly show.
PREFILL, DECODE = 128, 32
#: Rounds of each model, where time allows. Below the least, a median is no better than a single run.
ROUNDS, LEAST_ROUNDS = 7, 3
#: A round of a graph repeats its run until it took this long: a clock that is read too often measures itself.
ROUND_SECONDS = 0.02

#: What one round took, in seconds per unit: {"prefill", "decode"} per token, {"run"} per run.
Round = dict[str, float]


class Runner(Protocol):
    """An opened model."""

    device: str

    def warm(self) -> None:
        """As much of a round as it takes to have everything in its place."""
        ...

    def round(self) -> Round: ...

    def close(self) -> None: ...


def measure(
    before: Model, after: Model, *, feeds: Mapping[str, np.ndarray] | None = None, seconds: float = 60.0, device: str = "auto"
) -> dict[str, Any]:
    """Run both and compare. Both are ONNX models, both decoders or both graphs.

    feeds: what a graph is run on (default: seeded arrays of a plausible size); decoders get seeded tokens. seconds: no new round is
    begun that would end later, but every model gets one. Returns {"kind", "before": {"prefill_tok_s", "decode_tok_s"} or {"ms"},
    "after": {…}, "ratio": {"prefill", "decode"} or {"run"} (above 1: faster), "rounds", "how"}. Raises what opening and running do.
    """
    decoders = is_decoder(before)
    if decoders != is_decoder(after):
        raise UsageError("one of the two models is a decoder with a cache, the other is none", "compare models of one kind")
    opened = _decoder if decoders else _grapher(feeds)
    rounds, device_name, together = _rounds((before, after), opened, device, seconds)
    middle = [{name: statistics.median(each[name] for each in side) for name in side[0]} for side in rounds]
    what = f"of {PREFILL} + {DECODE} tokens " if decoders else ""
    medians = f"medians of {len(rounds[0])} rounds" if len(rounds[0]) > 1 else "one round, for want of time,"
    turns = "in turns" if together else "in turns, one model open at a time"
    return {
        "kind": "decoder" if decoders else "graph",
        "before": _figures(middle[0]),
        "after": _figures(middle[1]),
        "ratio": {name: round(middle[0][name] / middle[1][name], 3) for name in middle[0]},
        "rounds": len(rounds[0]),
        "how": f"{medians} {what}{turns}; onnxruntime on {device_name}, {_processor()}",
    }


def _figures(times: Round) -> dict[str, float]:
    if "run" in times:
        return {"ms": round(1e3 * times["run"], 4)}
    return {f"{name}_tok_s": round(1 / each, 2) for name, each in times.items()}


def _processor() -> str:
    cpu = host.cpu()
    return f"{cpu.model} × {cpu.cores}"


# --- turns --------------------------------------------------------------------------------------------------------------------------

Opener = Callable[[Model, str], Runner]


def _rounds(models: tuple[Model, Model], opened: Opener, device: str, seconds: float) -> tuple[list[list[Round]], str, bool]:
    """The rounds of each model, the device's name, and whether both were in memory at once."""
    end = time.perf_counter() + seconds
    together = fit_together(models)
    found: list[list[Round]] = [[], []]
    where = device
    with _both(models, opened, device, together) as turn, console.progress("measuring speed", ROUNDS) as meter:
        while len(found[0]) < (ROUNDS if together else LEAST_ROUNDS):
            start = time.perf_counter()
            for number, side in enumerate(found):
                times, where = turn(number)
                side.append(times)
            meter.advance(1)
            if 2 * time.perf_counter() - start > end:  # the next turn would end too late
                break
    return found, where, together


@contextmanager
def _both(models: tuple[Model, Model], opened: Opener, device: str, together: bool) -> Iterator[Callable[[int], tuple[Round, str]]]:
    """A function from 0 or 1 to a round of that model. Models are warm, and stay open between rounds only if `together`."""
    kept: dict[int, Runner] = {}

    def turn(number: int) -> tuple[Round, str]:
        runner = kept.get(number)
        if runner is None:
            if not together and kept:
                kept.pop(1 - number).close()
            runner = kept[number] = opened(models[number], device)
            runner.warm()
        return runner.round(), runner.device

    try:
        yield turn
    finally:
        for runner in kept.values():
            runner.close()


# --- what a round is ----------------------------------------------------------------------------------------------------------------


class _Decoder:
    """A prompt and some tokens more, on an empty cache each time."""

    def __init__(self, model: Model, device: str) -> None:
        from ...runtime.onnxruntime import open as open_decoder

        self.session = open_decoder(model, device)
        info = self.session.info
        self.device = info.device
        self.decode = min(DECODE, max(1, info.context // 2))
        self.prefill = max(1, min(PREFILL, info.context - self.decode))
        self.tokens = np.random.default_rng(0).integers(0, info.vocab_size, (1, self.prefill + self.decode))

    def warm(self) -> None:
        self.session.step(self.tokens[:, : self.prefill])
        self.session.step(self.tokens[:, -1:])

    def round(self) -> Round:
        self.session.truncate(0, 0)
        start = time.perf_counter()
        self.session.step(self.tokens[:, : self.prefill])
        middle = time.perf_counter()
        for at in range(self.prefill, self.tokens.shape[1]):
            self.session.step(self.tokens[:, at : at + 1])
        end = time.perf_counter()
        return {"prefill": (middle - start) / self.prefill, "decode": (end - middle) / self.decode}

    def close(self) -> None:
        self.session.close()


class _Graph:
    """The same inputs over and over. Warming up finds out how many runs a round needs."""

    def __init__(self, model: Model, device: str, feeds: Mapping[str, np.ndarray] | None) -> None:
        from ...runtime.graphs import open_graph

        self.session = open_graph(model, device=device, exact=False)
        self.device = self.session.device
        self.feeds = plausible(self.session) if feeds is None else feeds
        self.runs = 1

    def warm(self) -> None:
        self.session.run(self.feeds)
        start = time.perf_counter()
        self.session.run(self.feeds)
        self.runs = max(1, min(1000, round(ROUND_SECONDS / max(time.perf_counter() - start, 1e-9))))

    def round(self) -> Round:
        start = time.perf_counter()
        for _ in range(self.runs):
            self.session.run(self.feeds)
        return {"run": max(time.perf_counter() - start, 1e-9) / self.runs}

    def close(self) -> None:
        self.session.close()


def _decoder(model: Model, device: str) -> Runner:
    return _Decoder(model, device)


def _grapher(feeds: Mapping[str, np.ndarray] | None) -> Opener:
    return lambda model, device: _Graph(model, device, feeds)


def plausible(session: Any) -> dict[str, np.ndarray]:
    """Seeded arrays that a graph session takes, at the first of parity's typical sizes that it runs on. Raises UnsupportedError."""
    from ...parity.axes import dynamic_axes, typical
    from ...parity.cases import REFUSED
    from ...parity.feeds import CAPS, draw

    reason = ""
    axes = dynamic_axes(session.inputs)
    for sizes in typical(axes) if axes else ({},):
        for cap in (None, *CAPS[1:]):
            feeds = draw(session.inputs, sizes, cap=cap)
            try:
                session.run(feeds)
            except REFUSED as err:
                reason = err.message
                continue
            return feeds
    raise UnsupportedError(f"no inputs were found that this model runs on: {reason}", "give --data with arrays that it takes")


# --- in words -----------------------------------------------------------------------------------------------------------------------

#: Nearer than this to 1, medians of so few rounds tell nothing.
NOISE = 0.02
#: Weights that the processor's caches hold: reading fewer bytes gains little.
_SMALL_BYTES = 32_000_000
#: Type of codes → where such a model is faster for sure.
_PAYS = {
    "int8": "int8 pays on GPUs with TensorRT, and on processors with VNNI, AMX or i8mm",
    "fp8": "fp8 pays on GPUs of compute capability 8.9 and above; no processor computes in it",
    "int4": "int4 pays where reading weights is what takes the time: GPUs, and larger models decoding one row",
}


def warning(record: Mapping[str, Any], types: frozenset[str] = frozenset(), weight_bytes: int = 0) -> str:
    """What must be said of a record of `measure` where the second model is not faster, "" where it is.

    types: of the quantised codes ("int8", "fp8", "int4"). weight_bytes: of the float model, 0: unknown.
    """
    slow = {name: ratio for name, ratio in record["ratio"].items() if ratio < 1 + NOISE}
    if not slow:
        return ""
    parts = "; ".join(f"{_NAMES[name]}{ratio:.2f}×{_change(record, name)}" for name, ratio in slow.items())
    faster = [f"{name} is, {ratio:.2f}×" for name, ratio in record["ratio"].items() if name not in slow]
    reasons = [_PAYS[kind] for kind in sorted(types) if kind in _PAYS]
    if 0 < weight_bytes < _SMALL_BYTES:
        reasons.insert(0, f"a model of {console.size(weight_bytes)} hardly waits for memory")
    return f"not faster here: {parts}" + "".join(f"; {each}" for each in (*faster, *reasons))


_NAMES = {"prefill": "prefill ", "decode": "decode ", "run": ""}


def _change(record: Mapping[str, Any], name: str) -> str:
    """ " (700 → 560 tok/s)"."""
    key, unit = ("ms", "ms per run") if name == "run" else (f"{name}_tok_s", "tok/s")
    return f" ({arrow(record['before'][key], record['after'][key])} {unit})"


def arrow(before: float, after: float) -> str:
    """Two speeds or times with as many digits as they deserve: "700 → 900", "12.3 → 4.56"."""
    return f"{_short(before)} → {_short(after)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 99.5 else f"{value:.3g}"
