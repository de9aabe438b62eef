"""First-token time and decode tok/s of the scripted decoder against transformers' own (eager PyTorch), in one process, in turns.

    python tests/bench/bench_torchscript.py --work DIR [--rounds 15] [--dtype fp32] [--prompt 128] [--new 16]

Both run the seeded 0.3B shape on the CPU with the same number of threads; transformers as its `generate` calls it: a growing
cache, logits of the last token only, without what `generate` itself adds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rounds

from ernie_cli import host, route
from ernie_cli.runtime import torchscript_decoder

NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
Step = Callable[[np.ndarray], np.ndarray]


def ours(source: Path, work: Path, dtype: str, threads: int, context: int) -> tuple[Step, Callable[[], None]]:
    """(step, start over) of the converted model."""
    made = route.convert(source, to="torchscript", out=work / f"torchscript-{dtype}", options=route.Options(dtype=dtype, verify=False))
    session = torchscript_decoder.open_decoder(made, "cpu", context=context, threads=threads)
    return session.step, session.truncate


def theirs(source: Path, dtype: str) -> tuple[Step, Callable[[], None]]:
    """(step, start over) of transformers."""
    import torch
    from transformers import DynamicCache, Ernie4_5ForCausalLM

    model: Any = Ernie4_5ForCausalLM.from_pretrained(source, dtype=getattr(torch, NAMES[dtype])).eval()
    state = {"cache": DynamicCache()}

    def step(tokens: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = model(torch.from_numpy(tokens), past_key_values=state["cache"], use_cache=True, logits_to_keep=1).logits[:, -1]
            return logits.float().numpy()

    return step, lambda: state.update(cache=DynamicCache())


def sample(step: Step, start_over: Callable[[], None], tokens: np.ndarray, new: int) -> rounds.Sample:
    """tok/s of one prefill and `new` decode steps: short, so that turns change often."""
    start_over()
    start = time.perf_counter()
    logits = step(tokens)
    prefill = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(new):
        logits = step(logits.argmax(-1)[:, None])
    return {"prefill": tokens.size / prefill, "decode": new / (time.perf_counter() - start)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", choices=NAMES, default="fp32")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=16)
    parser.add_argument("--threads", type=int, default=host.cores())
    args = parser.parse_args()
    source = rounds.checkpoint(args.work)
    tokens = np.random.default_rng(0).integers(3, 1000, (1, args.prompt))
    pairs = {
        "ernie, torchscript": ours(source, args.work, args.dtype, args.threads, args.prompt + args.new + 8),
        "transformers, eager": theirs(source, args.dtype),
    }
    contenders = {name: lambda pair=pair: sample(*pair, tokens, args.new) for name, pair in pairs.items()}
    rounds.take_turns(contenders, 1)  # the first run allocates
    results = rounds.take_turns(contenders, args.rounds)
    print(rounds.table(results))
    us, them = results.values()
    print(f"decode {us['decode'] / them['decode']:.2f}x, prefill {us['prefill'] / them['prefill']:.2f}x (both must be >= 1.0)")


if __name__ == "__main__":
    main()
