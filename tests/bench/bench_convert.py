"""Checkpoint → ONNX (fp32, no check) against onnxruntime-genai's builder: wall time and peak memory, and the check beside it.

    python tests/bench/bench_convert.py --work DIR --peer-python PEERS/bin/python [--rounds 5]

The peers' environment holds onnxruntime-genai, torch and transformers; see RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import rounds


def peer_checkpoint(source: Path, folder: Path) -> Path:
    """The same weights with a tokenizer beside them: the peer's builder wants one."""
    from tokenizers import Tokenizer, models

    folder.mkdir(exist_ok=True)
    if not (folder / "model.safetensors").exists():
        os.link(source / "model.safetensors", folder / "model.safetensors")
    shutil.copy(source / "config.json", folder)
    Tokenizer(models.WordLevel({f"w{n}": n for n in range(1000)}, unk_token="w0")).save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0", "bos_token": "w1", "eos_token": "w2", "pad_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return folder


def ours(source: Path, out: Path, *more: str) -> list[str]:
    """Our command line."""
    return [sys.executable, "-m", "ernie_cli", "convert", str(source), "--to", "onnx", "-o", str(out), "--force", "-q", *more]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    source = rounds.checkpoint(args.work)
    peer = peer_checkpoint(source, args.work / "peer-checkpoint")
    builder = [args.peer_python, "-m", "onnxruntime_genai.models.builder", "-i", str(peer), "-o", str(args.work / "genai")]
    results = rounds.take_turns(
        {
            "ernie --no-verify": lambda: rounds.timed(ours(source, args.work / "onnx", "--no-verify")),
            "ernie with its check": lambda: rounds.timed(ours(source, args.work / "onnx-checked")),
            "genai builder": lambda: rounds.timed([*builder, "-p", "fp32", "-e", "cpu", "-c", str(args.work / "cache")]),
        },
        args.rounds,
    )
    check = json.loads((args.work / "onnx-checked" / "ernie.json").read_text())["checks"][0]
    print(rounds.table(results))
    ratio = results["ernie --no-verify"]["seconds"] / results["genai builder"]["seconds"]
    print(
        f"\nratio of wall time to the peer's: {ratio:.2f} (must be <= 0.5); peak {results['ernie --no-verify']['peak_mb']:.0f} MB (<= 1000)"
    )
    print(
        f"the check alone: {check['seconds']} s, process peak {check['peak_memory_mb']} MB, max rel {check['cached decode']['max_rel']:.1e}"
    )


if __name__ == "__main__":
    main()
