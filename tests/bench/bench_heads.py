"""Decoding with query heads that share keys apart, as the file has them, and joined, as `ernie run` opens it on a processor.

    python tests/bench/bench_heads.py --model DIR [--prompts 128 900] [--new 48] [--rounds 5]

DIR: what `ernie quantize` or `ernie convert` made; `bench_quantize.py` leaves one in its --work. Two sessions of one process in turns.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import rounds

from ernie_cli import host
from ernie_cli.model import Model
from ernie_cli.runtime import Session, onnxruntime


def decode(session: Session, prompt: int, new: int) -> rounds.Sample:
    """tok/s of one prompt and of the tokens after it."""
    session.truncate(0)
    start = time.perf_counter()
    logits = session.step(np.random.default_rng(0).integers(3, 1000, (1, prompt)))
    answered = time.perf_counter()
    for _ in range(new):
        logits = session.step(logits.argmax(-1)[:, None])
    return {"prefill": prompt / (answered - start), "decode": new / (time.perf_counter() - answered)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=int, nargs="+", default=[128, 900])
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model, context = Model.open(args.model), max(args.prompts) + args.new
    sessions = {
        name: onnxruntime.open(model, "cpu", context=context, threads=host.cores(), exact=exact)
        for name, exact in (("heads apart", True), ("joined", False))
    }
    for prompt in args.prompts:
        for session in sessions.values():
            decode(session, prompt, 1)  # the first run allocates
        run = rounds.take_turns({name: partial(decode, each, prompt, args.new) for name, each in sessions.items()}, args.rounds)
        ratio = {key: run["joined"][key] / run["heads apart"][key] for key in ("prefill", "decode")}
        print(f"{prompt} tokens, then {args.new}\n\n{rounds.table(run)}\n")
        print(f"joined / apart: decode {ratio['decode']:.2f}x, prefill {ratio['prefill']:.2f}x\n", flush=True)


if __name__ == "__main__":
    main()
