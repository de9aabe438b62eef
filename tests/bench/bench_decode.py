"""Decode and prefill tok/s in ONNX Runtime on the CPU, fp32: our graph with either cache against onnxruntime-genai's.

    python tests/bench/bench_decode.py --work DIR --peer-python PEERS/bin/python [--rounds 5]

128 prompt tokens, 64 new ones, all cores. Uses what bench_convert.py left in DIR.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import bench_convert
import rounds

from ernie_cli import host

HERE = Path(__file__).parent


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
    peer = [args.peer_python, str(HERE / "decode_genai.py"), str(args.work / "genai"), *sizes]
    contenders["onnxruntime-genai"] = lambda: rounds.printed(peer)
    results = rounds.take_turns(contenders, args.rounds)
    print(rounds.table(results))
    for name in list(results)[:-1]:
        ratios = {key: results[name][key] / results["onnxruntime-genai"][key] for key in ("decode", "prefill")}
        print(f"{name}: decode {ratios['decode']:.2f}x, prefill {ratios['prefill']:.2f}x the peer's (must be >= 1.5)")


if __name__ == "__main__":
    main()
