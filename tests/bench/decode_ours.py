"""One run of our ONNX Runtime session: `python decode_ours.py MODEL PROMPT NEW THREADS` prints JSON tok/s. Used by bench_decode.py."""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np

from ernie_cli.model import Model
from ernie_cli.runtime import onnxruntime

PREFILLS = 7


def main(path: str, prompt: int, new: int, threads: int) -> None:
    session = onnxruntime.open(Model.open(path), "cpu", context=prompt + new + 8, threads=threads)
    tokens = np.random.default_rng(0).integers(3, 1000, (1, prompt))
    session.step(tokens)  # the first run allocates
    prefills = []
    for _ in range(PREFILLS):
        session.truncate()
        start = time.perf_counter()
        logits = session.step(tokens)
        prefills.append(time.perf_counter() - start)
    prefill = statistics.median(prefills)
    start = time.perf_counter()
    for _ in range(new):
        logits = session.step(logits.argmax(-1)[:, None])
    decode = time.perf_counter() - start
    print(json.dumps({"prefill": prompt / prefill, "decode": new / decode}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
