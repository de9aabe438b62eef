"""One run of onnxruntime-genai's generator: `python decode_genai.py MODEL PROMPT NEW THREADS` prints JSON tok/s.

THREADS 0: as many as it takes by itself.

Runs in the peers' environment (peers.txt). Used by bench_decode.py.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime_genai as og

PREFILLS = 7


def main(path: str, prompt: int, new: int, threads: int) -> None:
    config_file = Path(path, "genai_config.json")
    config = json.loads(config_file.read_text())
    if threads:
        config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    else:
        config["model"]["decoder"]["session_options"].pop("intra_op_num_threads", None)
    config_file.write_text(json.dumps(config))
    model = og.Model(path)
    tokens = np.random.default_rng(0).integers(3, 1000, (1, prompt)).astype(np.int32)

    def generator() -> og.Generator:
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=prompt + new + 8, min_length=prompt + new + 8, do_sample=False)
        return og.Generator(model, params)

    generator().append_tokens(tokens)  # the first run allocates
    prefills = []
    for _ in range(PREFILLS):
        run = generator()
        start = time.perf_counter()
        run.append_tokens(tokens)
        run.generate_next_token()  # picks a token from the prompt's logits; the model runs again at the next call only
        prefills.append(time.perf_counter() - start)
    prefill = statistics.median(prefills)
    start = time.perf_counter()
    for _ in range(new):
        run.generate_next_token()
    decode = time.perf_counter() - start
    print(json.dumps({"prefill": prompt / prefill, "decode": new / decode}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
