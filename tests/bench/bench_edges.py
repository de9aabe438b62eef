"""Every edge between graph formats on every architecture of the zoo: error, seconds, peak memory → EDGES.md, README.md.

    python tests/bench/bench_edges.py [--only NAME …] [--jobs N] [--work FOLDER]

Each model is built by its own library, converted by `ernie_cli.route` in a process of its own per conversion (a crash costs one
cell), and compared here a second time, apart from the parity check inside the conversion: the original runs eagerly in paddle or
torch, each converted model in its own runtime, on inputs no conversion has seen. Exit code 1 if a cell failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "zoo"))

#: Largest |difference| over largest |value| of an output, float32; of integers and booleans, the share that may differ.
LIMIT = 1e-4
#: Seconds a single conversion may take.
PATIENCE = 900

#: A library's models: how each is made from which. "S" is the original. (name, source, format)
PADDLE = (
    ("A", "S", "onnx"),
    ("B", "A", "pdmodel"),
    ("C", "A", "torchscript"),
    ("D", "C", "onnx"),
    ("E", "C", "pdmodel"),
)
TORCH = (
    ("A", "S", "onnx"),
    ("B", "A", "pdmodel"),
    ("C", "A", "torchscript"),
    ("D", "C", "onnx"),
    ("E", "B", "onnx"),
    ("F", "E", "pdmodel"),
    ("G", "S", "pdmodel"),
)
#: Column → for each library, (first, …, last) of the chain of models it stands for.
COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "pdmodel → onnx": {"paddle": ("S", "A"), "torch": ("B", "E")},
    "onnx → pdmodel": {"paddle": ("A", "B"), "torch": ("A", "B")},
    "onnx → torchscript": {"paddle": ("A", "C"), "torch": ("A", "C")},
    "torchscript → onnx": {"paddle": ("C", "D"), "torch": ("S", "A")},
    "pdmodel → onnx → pdmodel": {"paddle": ("S", "A", "B"), "torch": ("B", "E", "F")},
    "onnx → torchscript → onnx": {"paddle": ("A", "C", "D"), "torch": ("A", "C", "D")},
    "torchscript → onnx → pdmodel": {"paddle": ("C", "E"), "torch": ("S", "G")},
}


# --- the orchestrator: imports no framework, so that its own memory does not show in its children's peaks ---------------


def child(verb: str, *arguments: str, limit: float = PATIENCE) -> tuple[dict[str, Any], float]:
    """Run a part in a process of its own: what it printed, and the peak memory in MB of it or any process below it."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        command = [sys.executable, "-W", "ignore", str(HERE / "edge_parts.py"), verb, *arguments]
        environment = {"OMP_NUM_THREADS": "1", "GLOG_minloglevel": "3", "TRANSFORMERS_VERBOSITY": "error", **os.environ}
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, start_new_session=True)
        usage, ended = None, time.monotonic() + limit
        while usage is None:
            pid, status, taken = os.wait4(process.pid, os.WNOHANG)
            usage = taken if pid else None
            if not pid and time.monotonic() > ended:
                os.killpg(process.pid, 9)
            if not pid:
                time.sleep(0.05)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        lines = out.read().strip().splitlines()
        if process.returncode or not lines:
            why = f"killed after {limit:g} s" if time.monotonic() > ended else f"ended with {process.returncode}: {err.read()[-600:]}"
            return {"exit": 1, "message": why, "hint": ""}, usage.ru_maxrss / 1e3
        return json.loads(lines[-1]), usage.ru_maxrss / 1e3


def row(name: str, library: str, work: Path) -> dict[str, Any]:
    """All cells of an architecture."""
    work.mkdir(parents=True)
    start = time.perf_counter()
    made, _ = child("build", name, str(work))
    if "source" not in made:
        return {"name": name, "library": library, "broken": made["message"]}
    models: dict[str, dict[str, Any]] = {"S": {"exit": 0, "seconds": 0.0, "check_seconds": 0.0, "peak_mb": 0.0}}
    for target, source, to in PADDLE if library == "paddle" else TORCH:
        before = models[source]
        if before["exit"]:
            models[target] = {**before, "after": before.get("after", source)}
            continue
        job = {
            "source": made["source"] if source == "S" else str(work / source),
            "to": to,
            "out": str(work / target),
            "inputs": made["options"] if needs_inputs(library, source) else [],
        }
        models[target], peak = child("convert", json.dumps(job))
        models[target]["peak_mb"] = peak
        print(f"{name}: {source} → {target} ({to}): {_short(models[target])}", file=sys.stderr, flush=True)
    chains = [list(chain[library]) for chain in COLUMNS.values() if not models[chain[library][-1]]["exit"]]
    compared, _ = child("compare", str(work), json.dumps(chains)) if chains else ({}, 0)
    if compared.get("exit"):
        print(f"{name}: the comparison {compared['message']}", file=sys.stderr)
    cells = {column: _cell(chain[library], models, compared) for column, chain in COLUMNS.items()}
    return {"name": name, "library": library, "mb": made["mb"], "seconds": time.perf_counter() - start, "cells": cells}


def needs_inputs(library: str, source: str) -> bool:
    """Whether the model is TorchScript as its library wrote it, which tells neither shapes nor types of its inputs."""
    return library == "torch" and source == "S"


def _cell(chain: tuple[str, ...], models: Mapping[str, Any], compared: Mapping[str, Any]) -> dict[str, Any]:
    """status: passed, unsupported (with the operators' names) or failed (why); "-" where what it begins with could not be made."""
    last = models[chain[-1]]
    if last["exit"]:
        status = "unsupported" if last["exit"] == 4 and operators(last["message"]) else "failed"
        if models[chain[0]]["exit"] and status == "failed":
            status = "-"
        return {"status": status, "why": last["message"], "operators": operators(last["message"]), "exit": last["exit"]}
    taken = [models[name] for name in chain[1:]]
    figures: dict[str, Any] = {
        "seconds": round(sum(each["seconds"] for each in taken), 2),
        "check_seconds": round(sum(each["check_seconds"] for each in taken), 2),
        "peak_mb": round(max(each["peak_mb"] for each in taken)),
        "checks": last["checks"],
        **compared.get("-".join(chain), {"error": None, "why": compared.get("message", "not compared")}),
    }
    known = [figures["error"], figures.get("error_original")]
    passed = all(each is not None and each <= LIMIT for each in known)
    return {"status": "passed" if passed else "failed", "why": "" if passed else "the outputs differ", **figures}


def operators(message: str) -> list[str]:
    """The operators an error of exit code 4 names: "LSTM × 2 (…); …", or `quoted` ones."""
    named = (
        re.findall(r"([\w.:]+) × \d+", message) or re.findall(r"operator [`']?([\w.:]+)", message) or re.findall(r"`([\w.:]+)`", message)
    )
    return list(dict.fromkeys(named))


def _short(model: Mapping[str, Any]) -> str:
    if model["exit"]:
        return f"exit {model['exit']}: {model['message'][:300]}"
    return f"{model['seconds']:.1f} s + {model['check_seconds']:.1f} s, {model['peak_mb']:.0f} MB"


# --- the table ----------------------------------------------------------------------------------------------------------


def render(rows: list[Mapping[str, Any]]) -> str:
    """EDGES.md."""
    lines = ["| architecture | from | MB | " + " | ".join(COLUMNS) + " |", "|---" * (3 + len(COLUMNS)) + "|"]
    counts = {"passed": 0, "unsupported": 0, "failed": 0}
    for each in rows:
        if "broken" in each:
            lines.append(f"| {each['name']} | {each['library']} | | FAILED to build: {each['broken'][-200:]!r} |")
            counts["failed"] += 1
            continue
        cells = [each["cells"][column] for column in COLUMNS]
        for cell in cells:
            if cell["status"] in counts:
                counts[cell["status"]] += 1
        lines.append(f"| {each['name']} | {each['library']} | {each['mb']:g} | " + " | ".join(map(_text, cells)) + " |")
    total = sum(counts.values())
    said = f"{total} cells: {counts['passed']} passed, {counts['unsupported']} unsupported, {counts['failed']} failed"
    return "\n".join([HEAD, said + ".", "", *lines, ""])


def summary(rows: list[Mapping[str, Any]]) -> str:
    """The README's table: EDGES.md, one line per column."""
    lines = ["| | passed | unsupported | failed | largest error | convert + check, median | most memory |", "|---|---|---|---|---|---|---|"]
    for column in COLUMNS:
        cells = [each["cells"][column] for each in rows if "cells" in each]
        passed, unsupported, failed = (
            [cell for cell in cells if cell["status"] == status] for status in ("passed", "unsupported", "failed")
        )
        names = sorted({name for cell in unsupported for name in cell["operators"]})
        seconds = " + ".join(f"{statistics.median(cell[key] for cell in passed):.1f}" for key in ("seconds", "check_seconds"))
        figures = f"{max(cell['error'] for cell in passed):.1e} | {seconds} s | {max(cell['peak_mb'] for cell in passed)} MB"
        refused = f"{len(unsupported)}{': ' * bool(names)}{', '.join(names)}"
        lines.append(f"| {column} | {len(passed)} | {refused} | {len(failed)} | {figures} |")
    return "\n".join(lines)


def into_readme(rows: list[Mapping[str, Any]], readme: Path) -> None:
    """Put `summary` between the README's two marks."""
    begin, end = "<!-- bench_edges.py -->\n", "\n<!-- /bench_edges.py -->"
    text = readme.read_text()
    head, tail = text.index(begin) + len(begin), text.index(end)
    readme.write_text(text[:head] + summary(rows) + text[tail:])


HEAD = f"""# Every edge on every architecture

Written by `python tests/bench/bench_edges.py` (which writes every figure to EDGES.json beside it). Each cell: the largest relative error
(largest |difference| over largest |value| of an output; limit {LIMIT:g}) of the converted model in its own runtime against the
model the column begins with, over three input shapes; seconds to convert, loading of libraries included + seconds of the parity
check; peak memory of the largest process. A cell passes only if the result is also within the limit of the original, run eagerly by
the library it was written in. "unsupported" names the operators that `ernie convert` refused with exit code 4.
"""


def _text(cell: Mapping[str, Any]) -> str:
    if cell["status"] == "passed":
        return f"{cell['error']:.1e}, {cell['seconds']:.1f} + {cell['check_seconds']:.1f} s, {cell['peak_mb']} MB"
    if cell["status"] == "unsupported":
        return f"unsupported: {', '.join(cell['operators']) or cell['why'][:80]}"
    why = cell["why"].replace("|", "/").replace("\n", " ")
    return "–" if cell["status"] == "-" else f"**FAILED** {why[:120]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these architectures; the other rows of EDGES.json stay")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, help="keep the models here")
    parser.add_argument("--out", type=Path, default=HERE, help="where EDGES.md and EDGES.json go")
    chosen = parser.parse_args()
    from architectures import ZOO

    unknown = set(chosen.only or ()) - set(ZOO)
    if unknown:
        parser.error(f"no architecture named {', '.join(sorted(unknown))}; there are {', '.join(ZOO)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    work = chosen.work or Path(tempfile.mkdtemp(prefix="edges-"))

    def one(name: str) -> dict[str, Any]:
        shutil.rmtree(work / name, ignore_errors=True)
        result = row(name, ZOO[name].library, work / name)
        if not chosen.work:
            shutil.rmtree(work / name)
        return result

    kept = chosen.out / "EDGES.json"
    rows = {each["name"]: each for each in json.loads(kept.read_text())} if chosen.only and kept.exists() else {}
    taken = {}
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for done in as_completed([pool.submit(one, name) for name in chosen.only or ZOO]):  # written as they come
            taken[done.result()["name"]] = rows[done.result()["name"]] = done.result()
            ordered = [rows[name] for name in ZOO if name in rows]
            kept.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
            (chosen.out / "EDGES.md").write_text(render(ordered))
    if chosen.out == HERE and len(rows) == len(ZOO):
        into_readme(list(rows.values()), HERE.parents[1] / "README.md")
    print(render([taken[name] for name in ZOO if name in taken]))
    failed = any("broken" in each or any(cell["status"] == "failed" for cell in each["cells"].values()) for each in taken.values())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
