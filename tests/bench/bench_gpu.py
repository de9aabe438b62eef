"""Decode and prefill on a GPU: ONNX Runtime on CUDA and TensorRT-RTX beside transformers, eager and compiled, in one run.

    python tests/bench/bench_gpu.py [--work DIR] [--models nano,0.3B] [--precisions fp16,bf16,int8,int4] [--batch 1,8,32] [--rounds 3]

Prints a table for RESULTS.md: tok/s, time to the first token, and the share of the memory bandwidth that decoding reaches (bytes of
weights and cache that a step must read ÷ seconds ÷ measured bandwidth of a copy). Contenders take turns, each in a process of its
own that keeps its model open; medians. What cannot run is listed with its reason, and nothing of it is claimed.
`--device cpu --nano --rounds 1` plays the same on a processor, for the script's sake.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import gpu_models
import gpu_table
import rounds

from ernie_cli import device as devices

HERE = Path(__file__).parent
#: Seconds until a contender that says nothing is given up: the first compiled step takes minutes.
PATIENCE = 420
TORCH = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


class Worker:
    """A contender's process. `failed` says why it is none."""

    def __init__(self, wanted: dict[str, Any], **environment: str) -> None:
        command = [sys.executable, str(HERE / "gpu_worker.py"), json.dumps(wanted)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **environment}
        )
        self.opened = self._answer()
        self.failed = self.opened.get("failed", "")
        self.chosen: list[int] = []

    def round(self, order: dict[str, int]) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"failed": "its process ended"}
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        if not ready:
            return {"failed": f"no answer within {PATIENCE} s"}
        line = self.process.stdout.readline()
        return json.loads(line) if line.strip() else {"failed": f"its process ended with {self.process.wait()}"}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Bench:
    """One run: what was asked, what was found, what could not be."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.on = "cpu" if args.device == "cpu" else "cuda"
        self.rows: list[dict[str, Any]] = []
        self.missing: list[tuple[str, str]] = []
        here, why = devices.detect()
        self.no_gpu = "" if self.on == "cpu" or here.kind == "cuda" else f"no GPU here: {why}"
        self.bandwidth = 0.0

    def run(self) -> None:
        self._measure_bandwidth()
        groups = dict.fromkeys((model, gpu_models.FLOATS[precision]) for model in self.args.models for precision in self.args.precisions)
        for model, floats in groups:
            self._group(model, floats, [each for each in self.args.precisions if gpu_models.FLOATS[each] == floats])

    def _measure_bandwidth(self) -> None:
        if self.no_gpu:
            return self.missing.append(("memory bandwidth", self.no_gpu))
        found = Worker({"kind": "bandwidth", "device": self.on})
        found.close()
        if found.failed:
            return self.missing.append(("memory bandwidth", found.failed))
        self.bandwidth = found.opened["bandwidth"]
        return None

    def _group(self, model: str, floats: str, precisions: list[str]) -> None:
        """All contenders that compute in one float type, side by side at every batch size."""
        with ExitStack() as stack:
            workers: dict[tuple[str, str], Worker] = {}
            for runtime, precision, wanted, environment in self._contenders(model, floats, precisions):
                part = f"{model} {precision}, {runtime}"
                found = self._opened(part, wanted, environment)
                if isinstance(found, str):
                    self.missing.append((part, found))
                else:
                    stack.callback(found.close)
                    workers[runtime, precision] = found
            for batch in self.args.batch:
                self._turns(model, batch, dict(workers))

    def _opened(self, part: str, wanted: Callable[[], dict[str, Any] | str], environment: dict[str, str]) -> Worker | str:
        """A contender with its model made and open, or why there is none."""
        if self.no_gpu:
            return self.no_gpu
        print(f"opening {part}", file=sys.stderr, flush=True)
        try:
            order = wanted()
        except gpu_models.Failed as err:
            return str(err)
        if isinstance(order, str):
            return order
        worker = Worker(order, **environment)
        if worker.failed:
            worker.close()
            return worker.failed
        return worker

    def _contenders(self, model: str, floats: str, precisions: list[str]) -> Iterator[tuple[str, str, Any, dict[str, str]]]:
        """(runtime, precision, a function that gives the worker's order or the reason why there is none, its environment)."""
        args, most = self.args, max(self.args.batch)
        size = {"device": self.on, "batch": most, "context": args.prompt + args.new}

        def ours(precision: str) -> dict[str, Any]:
            return {"kind": "ours", "path": str(gpu_models.graph(model, precision, args.work)), **size}

        def built(precision: str, library: str) -> dict[str, Any] | str:
            if self.on == "cpu":
                return "engines run on NVIDIA GPUs alone"
            path = gpu_models.engine(model, precision, args.work, context=size["context"], batch=most, library=library)
            return {"kind": "ours", "path": str(path), **size}

        def theirs(compiled: bool) -> dict[str, Any]:
            place = str(gpu_models.checkpoint(model, args.work))
            return {"kind": "transformers", "path": place, "dtype": TORCH[floats], "compiled": compiled, **size}

        for precision in precisions:
            yield "ONNX Runtime", precision, partial(ours, precision), {}
            if self.on == "cuda" and precision in ("int4", "int8-weight"):
                # Its CUTLASS kernels for larger batches, off by default: opening then takes seconds more per matrix.
                yield "ONNX Runtime, fpA_intB", precision, partial(ours, precision), {"ORT_FPA_INTB_GEMM": "1"}
            for library in args.engine_libraries:
                yield {"tensorrt-rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}[library], precision, partial(built, precision, library), {}
        yield "transformers, eager", floats, partial(theirs, False), {}
        yield "transformers, torch.compile", floats, partial(theirs, True), {}

    def _turns(self, model: str, batch: int, workers: dict[tuple[str, str], Worker]) -> None:
        """Warm up whoever can, then take turns; a row of the table for each."""
        order = {"batch": batch, "prompt": self.args.prompt, "new": self.args.new}
        for (runtime, precision), worker in list(workers.items()):
            said = worker.round({**order, "new": min(8, self.args.new)})
            if "failed" in said:
                self.missing.append((f"{model} {precision}, {runtime}, batch {batch}", said["failed"]))
                del workers[runtime, precision]
        named = {f"{model} {precision}, {runtime}, batch {batch}": (runtime, precision) for runtime, precision in workers}
        plays = {name: partial(self._sample, name, workers[key], order) for name, key in named.items()}
        medians = rounds.take_turns(plays, self.args.rounds) if plays else {}
        medians = {name: found for name, found in medians.items() if found["decode"] == found["decode"]}  # NaN: it failed on the way
        eager = next((name for name in medians if "eager" in name), None)
        for name, found in medians.items():
            runtime, precision = named[name]
            row = {
                "model": model,
                "precision": precision,
                "runtime": runtime,
                "batch": batch,
                "about": workers[named[name]].opened["opened"],
            }
            times = found["decode"] / medians[eager]["decode"] if eager else None
            same = self._same(worker, workers[named[eager]]) if eager else None
            self.rows.append({**row, **found, **self._against_memory(model, precision, batch, found), "times_eager": times, "same": same})

    def _sample(self, name: str, worker: Worker, order: dict[str, int]) -> rounds.Sample:
        said = worker.round(order)
        if "failed" in said:
            self.missing.append((name, said["failed"]))
            return dict.fromkeys(("prefill", "decode", "first_ms"), float("nan"))
        worker.chosen = said["chosen"]
        tokens = {"prefill": order["batch"] * order["prompt"], "decode": order["batch"] * order["new"]}
        return {**{name: tokens[name] / said[name] for name in tokens}, "first_ms": 1e3 * said["prefill"]}

    def _against_memory(self, model: str, precision: str, batch: int, found: dict[str, float]) -> dict[str, float | None]:
        """What a step must read, and the share of the measured bandwidth that this comes to."""
        needed = gpu_models.read_bytes(gpu_models.graph(model, precision, self.args.work))
        step = needed.of_step(batch, self.args.prompt + self.args.new / 2)
        return {"mb_per_step": step / 1e6, "share": step * found["decode"] / batch / self.bandwidth if self.bandwidth else None}

    def _same(self, worker: Worker, other: Worker) -> float:
        """Share of steps at which two chose the same token: far from 1, one of them does not compute the model."""
        return sum(one == two for one, two in zip(worker.chosen, other.chosen, strict=True)) / len(other.chosen)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where models are made and kept (default: a temporary folder)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models", type=_words, default=list(gpu_models.MODELS))
    parser.add_argument("--nano", action="store_const", dest="models", const=["nano"], help="the embedded model alone")
    parser.add_argument("--precisions", type=_words, default=["fp16", "int8", "int8-weight", "int4", "bf16"])
    parser.add_argument("--engine-libraries", type=_words, default=["tensorrt-rtx"])
    parser.add_argument("--batch", type=lambda text: [int(word) for word in _words(text)], default=[1, 8, 32])
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the raw figures here")
    args = parser.parse_args()
    unknown = [word for word in args.models if word not in gpu_models.MODELS]
    unknown += [word for word in args.precisions if word not in gpu_models.FLOATS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join([*gpu_models.MODELS, *gpu_models.FLOATS])}")
    with ExitStack() as stack:
        if args.work is None:
            args.work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-")))
        bench = Bench(args)
        bench.run()
        facts = gpu_table.facts(args, bench.on, bench.no_gpu, bench.bandwidth)
        print(gpu_table.text(facts, bench.rows, bench.missing, claims=bench.on != "cpu"))
        if args.json:
            found = {"facts": facts, "bandwidth": bench.bandwidth, "rows": bench.rows, "missing": bench.missing}
            args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
