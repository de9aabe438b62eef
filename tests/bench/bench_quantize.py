"""Checkpoint → int4 ONNX against onnxruntime-genai's builder at int4: wall time, peak memory, bytes; then how fast the results decode.

    python tests/bench/bench_quantize.py --work DIR --peer-python PEERS/bin/python [--llama-python LLAMA/bin/python] [--rounds 5]

The peers' environment holds onnxruntime-genai, torch and transformers, the other one llama-cpp-python; see RESULTS.md.
Every run starts from the checkpoint; no quality is measured on the way, which the peer does not do either. 128 prompt tokens,
64 new ones, all cores; genai also with as many threads as it takes by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bench_convert
import rounds

from ernie_cli import host

HERE = Path(__file__).parent
SCHEMES = {"int4": ("--block", "32"), "int4, blocks of 128": ("--block", "128"), "int8-weight": ()}


def ours(source: Path, name: str, out: Path) -> list[str]:
    """Our command line."""
    scheme, *_ = name.split(",")
    words = ["quantize", str(source), "--to", scheme, *SCHEMES[name], "-o", str(out), "--no-measure", "--force", "-q"]
    return [sys.executable, "-m", "ernie_cli", *words]


def folder_mb(folder: Path) -> float:
    """What the graph and its weights take."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.name.startswith("model.onnx")) / 1e6


def making(source: Path, peer: Path, work: Path, python: str) -> dict[str, Callable[[], rounds.Sample]]:
    """Who makes what: each run leaves its result in `work`."""
    builder = [python, "-m", "onnxruntime_genai.models.builder", "-i", str(peer), "-o", str(work / "genai-int4")]
    commands = {f"ernie {name}": (ours(source, name, work / _folder(name)), work / _folder(name)) for name in SCHEMES}
    commands["genai builder int4"] = ([*builder, "-p", "int4", "-e", "cpu", "-c", str(work / "cache")], work / "genai-int4")

    def made(command: list[str], out: Path) -> rounds.Sample:
        return {**rounds.timed(command), "model_mb": folder_mb(out)}

    return {name: partial(made, *pair) for name, pair in commands.items()}


def decoding(work: Path, python: str, llama: str | None, sizes: list[str]) -> dict[str, Callable[[], rounds.Sample]]:
    """The results at work, one process each."""
    commands = {f"ernie {name}": [sys.executable, str(HERE / "decode_ours.py"), str(work / _folder(name)), *sizes] for name in SCHEMES}
    for threads in ("0", sizes[2]):
        label = "genai int4, " + (f"{threads} threads" if threads != "0" else "its own number of threads")
        commands[label] = [python, str(HERE / "decode_genai.py"), str(work / "genai-int4"), *sizes[:2], threads]
    for kind in ("Q4_0", "Q8_0") if llama else ():
        commands[f"llama.cpp {kind}"] = [str(llama), str(HERE / "decode_llama.py"), str(work / "checkpoint"), kind, *sizes]
    return {name: partial(rounds.printed, command) for name, command in commands.items()}


def _folder(name: str) -> str:
    return "quantised-" + name.replace(", blocks of ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--llama-python")
    parser.add_argument("--only-decode", action="store_true", help="time what an earlier run left in --work")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=64)
    args = parser.parse_args()
    source = rounds.checkpoint(args.work)
    peer = bench_convert.peer_checkpoint(source, args.work / "peer-checkpoint")
    sizes = [str(number) for number in (args.prompt, args.new, host.cores())]
    if not args.only_decode:
        made = rounds.take_turns(making(source, peer, args.work, args.peer_python), args.rounds)
        print(rounds.table(made), "\n")
        mine, theirs = made["ernie int4"], made["genai builder int4"]
        ratio = mine["seconds"] / theirs["seconds"]
        print(f"int4, wall time / the peer's: {ratio:.2f} (must be <= 1.0); peak {mine['peak_mb']:.0f} MB (<= 1200)\n")
    run = rounds.take_turns(decoding(args.work, args.peer_python, args.llama_python, sizes), args.rounds)
    print(rounds.table(run), "\n")
    for name in SCHEMES:
        for peer_name in (each for each in run if not each.startswith("ernie")):
            faster = {key: run[f"ernie {name}"][key] / run[peer_name][key] for key in ("decode", "prefill")}
            print(f"{name}, {host.cores()} threads / {peer_name}: decode {faster['decode']:.2f}x, prefill {faster['prefill']:.2f}x")


if __name__ == "__main__":
    main()
