"""Every scheme on the embedded model: what it costs, measured on held-out lines, and how long the whole flow takes.

    python tests/bench/bench_quality.py [--work DIR]

Runs `ernie quantize` as a user does (calibrate, quantise, measure) and prints a table from the reports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NANO = Path(__file__).resolve().parents[2] / "ernie_cli" / "nano"
DATA = ("--data", str(NANO / "calibration.jsonl"), "--eval-data", str(NANO / "heldout.jsonl"), "--samples", "192")
CASES: dict[str, tuple[str, ...]] = {
    "int8": ("int8",),
    "int8, --smooth off": ("int8", "--smooth", "off"),
    "fp8": ("fp8",),
    "int8-weight": ("int8-weight",),
    "fp8-weight": ("fp8-weight",),
    "int4": ("int4",),
    "int4 --block 128": ("int4", "--block", "128"),
    "int4 --method awq": ("int4", "--method", "awq", *DATA),
    "int4 --method gptq": ("int4", "--method", "gptq", *DATA),
    "int4 --method gptq --mix auto": ("int4", "--method", "gptq", "--mix", "auto", *DATA),
    "int8-kv": ("int8-kv",),
    "fp8-kv": ("fp8-kv",),
}


def row(name: str, words: tuple[str, ...], source: Path, out: Path) -> str:
    """One line of the table."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "ernie_cli", "quantize", str(source), "--to", *words, "-o", str(out), "--force", "--json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    record = json.loads(done.stdout)["quantization"]
    found, exact = record["quality"], record["quality"]["exact_match"]
    ratios = f"{found['perplexity']['ratio']:.4f} | {found['answer_perplexity']['ratio']:.4f} | {found['kl']:.1e} | {found['top1']:.1%}"
    return f"| `{name}` | {ratios} | {exact['after']:.4f} | {record['bytes']['weights']['ratio']:.2f} | {seconds:.1f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    work = parser.parse_args().work or Path(tempfile.mkdtemp(prefix="quality-"))
    source = work / "onnx"
    convert = [sys.executable, "-m", "ernie_cli", "convert", "ernie-4.5-nano", "--to", "onnx", "-o", str(source), "-q"]
    subprocess.run(convert, check=True, stdout=sys.stderr)
    columns = ("`--to`", "perplexity, all tokens", "… of answers", "KL", "top-1", "exact match", "weights", "whole flow")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, words in CASES.items():
        print(row(name, words, source, work / "out"), flush=True)


if __name__ == "__main__":
    main()
