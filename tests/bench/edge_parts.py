"""What bench_edges.py runs in processes of their own: build an original, convert a model, compare the results. One verb each.

    python edge_parts.py build NAME FOLDER | convert JOB | compare FOLDER CHAINS

The result is one JSON object, the last line on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "zoo"))


def build(name: str, work: Path) -> dict[str, Any]:
    """Make the original, save it as its library does, and keep its outputs for inputs that no conversion sees."""
    import numpy as np
    import originals
    from architectures import ZOO

    one = ZOO[name]
    module = originals.build(one)
    source = originals.save(one, module, work / "S")
    for which in range(3):
        feeds = one.feeds(100 + which, which)
        outputs = originals.run(one, module, feeds)
        np.savez(work / f"seen{which}.npz", **{f"in_{key}": array for key, array in feeds.items()}, **_numbered(outputs))
    megabytes = sum(each.stat().st_size for each in source.parent.iterdir()) / 1e6
    return {"source": str(source), "mb": round(megabytes, 1), "options": [each.option() for each in one.inputs]}


def convert(job: Mapping[str, Any]) -> dict[str, Any]:
    """One conversion through the public API. Parity checks are timed apart."""
    from ernie_cli import route
    from ernie_cli.errors import ErnieError
    from ernie_cli.parity import graphs

    checking, check = [0.0], graphs.check

    def timed(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return check(*given, **named)
        finally:
            checking[0] += time.perf_counter() - start

    graphs.check = timed
    options = route.Options(input_specs=tuple(job["inputs"]))
    start = time.perf_counter()
    try:
        made = route.convert(job["source"], to=job["to"], out=Path(job["out"]), options=options)
    except ErnieError as err:
        return {"exit": err.exit_code, "message": err.message, "hint": err.hint}
    finally:
        graphs.check = check
    seconds = time.perf_counter() - start
    return {"exit": 0, "seconds": seconds - checking[0], "check_seconds": checking[0], "checks": made.manifest.get("checks", [])}


def compare(work: Path, chains: list[list[str]]) -> dict[str, Any]:
    """For every chain (first, …, last) of models: the error of the last against the first, and against the original."""
    import numpy as np

    outputs: dict[str, list[list[Any]]] = {"S": []}
    inputs = []
    for which in range(3):
        kept = np.load(work / f"seen{which}.npz")
        inputs.append({key[3:]: kept[key] for key in kept.files if key.startswith("in_")})
        outputs["S"].append([kept[key] for key in kept.files if key.startswith("out_")])
    said: dict[str, str] = {}
    for name in sorted({each for chain in chains for each in chain} - {"S"}):
        try:
            outputs[name] = native(work / name, inputs)
        except Exception as err:  # noqa: BLE001 — whatever a runtime says of a model that ernie passed is the finding
            said[name] = f"{type(err).__name__}: {err}"
    result = {}
    for chain in chains:
        lost = [said[name] for name in (chain[0], chain[-1]) if name in said]
        if lost:
            result["-".join(chain)] = {"error": None, "why": lost[0][:300]}
            continue
        figures = [error(outputs[first], outputs[chain[-1]]) for first in (chain[0], "S")]
        result["-".join(chain)] = {"error": figures[0], "error_original": figures[1]}
    return result


def native(folder: Path, inputs: list[dict[str, Any]]) -> list[list[Any]]:
    """A converted model's outputs, by the runtime its format belongs to. Inputs go by the original's names."""
    manifest = json.loads((folder / "ernie.json").read_text())
    main, names = folder / manifest["main"], [each["name"] for each in manifest["inputs"]]
    if sorted(names) != sorted(inputs[0]):
        raise ValueError(f"the inputs are called {names}, not {list(inputs[0])}")
    if manifest["format"] == "onnx":
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        session = onnxruntime.InferenceSession(str(main), providers=["CPUExecutionProvider"])
        return [session.run(None, feeds) for feeds in inputs]
    if manifest["format"] == "torchscript":
        import torch

        module = torch.jit.load(str(main)).eval()
        with torch.inference_mode():
            results = [module(*(torch.from_numpy(feeds[name]) for name in names)) for feeds in inputs]
        return [[each.numpy() for each in (out if isinstance(out, tuple | list) else (out,))] for out in results]
    from paddle import inference

    config = inference.Config(str(main), str(main.with_suffix(".pdiparams")))
    config.disable_glog_info()
    config.disable_mkldnn()
    predictor = inference.create_predictor(config)
    results = []
    for feeds in inputs:
        for name in predictor.get_input_names():
            handle = predictor.get_input_handle(name)
            handle.reshape(feeds[name].shape)
            handle.copy_from_cpu(feeds[name])
        predictor.run()
        results.append([predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()])
    return results


def error(expected: list[list[Any]], actual: list[list[Any]]) -> float | None:
    """The largest over all runs and outputs; None where shapes, types or their number differ, or a value is not finite."""
    import numpy as np

    worst = 0.0
    for want_all, got_all in zip(expected, actual, strict=True):
        if len(want_all) != len(got_all):
            return None
        for want, got in zip(want_all, got_all, strict=True):
            if want.shape != got.shape or want.dtype.kind != got.dtype.kind or not np.isfinite(got).all():
                return None
            if not want.size:
                continue
            if want.dtype.kind != "f":
                worst = max(worst, float((want != got).mean()))
                continue
            worst = max(worst, float(np.abs(want.astype(np.float64) - got).max() / max(np.abs(want).max(), 1e-30)))
    return worst


def _numbered(arrays: list[Any]) -> dict[str, Any]:
    return {f"out_{number:03}": array for number, array in enumerate(arrays)}


def main(verb: str, *arguments: str) -> None:
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # libraries chatter on stdout
        if verb == "build":
            result = build(arguments[0], Path(arguments[1]))
        elif verb == "convert":
            result = convert(json.loads(arguments[0]))
        else:
            result = compare(Path(arguments[0]), json.loads(arguments[1]))
        answer.write(json.dumps(result, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
