"""Decode and prefill tok/s in ONNX Runtime on the CPU, fp32: our graph with either cache against onnxruntime-genai's.

    python tests/bench/bench_decode.py --work DIR --peer-python PEERS/bin/python [--rounds 5]

128 prompt tokens, 64 new ones, all cores. Uses what bench_convert.py left in DIR.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read_bandwidth brings its own threads

import bench_convert
import numpy as np
import rounds

from ernie_cli import host

HERE = Path(__file__).parent


def read_bandwidth(n_bytes: int = 512 << 20, times: int = 3) -> rounds.Sample:
    """GB/s at which all cores together read memory: dot products of arrays too large for any cache."""
    arrays = [np.ones(n_bytes // 4, np.float32) for _ in range(host.cores())]
    with ThreadPoolExecutor(len(arrays)) as pool:
        start = time.perf_counter()
        for _ in range(times):
            list(pool.map(lambda array: np.dot(array, array), arrays))
        seconds = time.perf_counter() - start
    rate = n_bytes * len(arrays) * times / seconds / 1e9
    return {"prefill": rate, "decode": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=64)
    args = parser.parse_args()
    source = rounds.checkpoint(args.work)
    sizes = [str(args.prompt), str(args.new), str(host.cores())]
    contenders = {}
    for cache in ("static", "growing"):
        out = args.work / f"onnx-{cache}"
        rounds.timed([word for word in bench_convert.ours(source, out, "--no-verify", "--kv-cache", cache) if word != "--force"])
        command = [sys.executable, str(HERE / "decode_ours.py"), str(out), *sizes]
        contenders[f"ernie, {cache} cache"] = lambda command=command: rounds.printed(command)
    peers = {"onnxruntime-genai, its own number of threads": "0", f"onnxruntime-genai, {host.cores()} threads": str(host.cores())}
    for name, threads in peers.items():
        peer = [args.peer_python, str(HERE / "decode_genai.py"), str(args.work / "genai"), *sizes[:2], threads]
        contenders[name] = lambda command=peer: rounds.printed(command)
    contenders["reading memory"] = read_bandwidth
    results = rounds.take_turns(contenders, args.rounds)
    memory = results.pop("reading memory")["decode"]
    print(rounds.table(results))
    for name in list(results)[: -len(peers)]:
        for peer in peers:
            ratios = {key: results[name][key] / results[peer][key] for key in ("decode", "prefill")}
            print(f"{name} / {peer}: decode {ratios['decode']:.2f}x, prefill {ratios['prefill']:.2f}x")
    weights = Path(args.work / "onnx-static" / "model.onnx.data").stat().st_size / 1e9
    most = memory / weights
    print(f"\nreading memory on all cores: {memory:.1f} GB/s; a token reads {weights:.2f} GB: at most {most:.1f} tok/s in fp32")


if __name__ == "__main__":
    main()
