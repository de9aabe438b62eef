"""The steps of one quantisation, in order; quantize.py opens and closes the folder around them.

base    the float graph that codes are made from: the source itself, or a copy into which smoothing or AWQ was folded
makers  how the codes of some layers are made (GPTQ, 8 bits of a mix); all others are rounded to nearest
scales  of activations and caches, measured on data
build   base + makers + scales − the layers put back → a folder, which is then measured
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from .. import console
from ..checkpoint.carry import carry
from ..digest import facts_of
from ..model import Model, write_manifest
from . import budget, cache, edit, layers, measured, pairs, search, smooth, tables, write
from .calibrate.scales import Scales, activation_scales, graph_digest, write_scales
from .codes import Codes
from .plan import Plan, chosen_layers, is_decoder
from .report import files, quality, table
from .report.harm import harm
from .scheme import WeightFormat
from .source import open_source

if TYPE_CHECKING:
    from .calibrate.data import Data

Maker = Callable[[np.ndarray], Codes]
#: Of the data, what is kept for measuring where --eval-data is not given.
HELD_BACK = 0.25
#: Layers are tried one by one for so long where some must go back to float; else they are ranked by SQNR.
HARM_SECONDS = 120
FILE = "model.onnx"
#: What was measured of activations, for people to read, and to give back with --scales.
SCALES = "scales.json"
#: What a manifest says of its own folder, and what a quantised model's says anew.
_OWN = ("ernie", "format", "files", "checks", "key", "made_from", "made_by", "main", "precision", "opset", "weight_bytes", "quantization")


class Work:
    """One plan being carried out. `scratch` is a folder that goes away afterwards."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self.plan, self.scheme, self.options, self.scratch = plan, plan.scheme, plan.options, scratch
        if self.options.observer == "auto":  # keys and values lost a little more by any other, see RESULTS.md
            self.options = replace(self.options, observer="minmax" if self.scheme.cache else "mse")
        self.base = plan.source
        self.makers: dict[str, Maker] = {}
        self.forms: dict[str, WeightFormat] = {}
        self.scales: dict[str, float] = {}
        self.known_scales: Scales | None = None
        self.folded: dict[str, np.ndarray] = {}
        self.layers: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, tuple[str, str]] = {}
        self.record: dict[str, Any] = {"scheme": self.scheme.name, "says": self.scheme.says}

    def run(self) -> Model:
        """Everything. Returns the folder that was made, with the record in its manifest."""
        start = time.perf_counter()
        self._fold()
        self._find_scales()
        made = self.build(frozenset())
        self.record["bytes"] = files.bytes_of(self.plan.source, made)
        if self.options.max_drop is not None:
            made = self._fit(made)
        if self.options.measure:
            self._measure(made)
        self.record["layers"] = [self.layers[name] for name in self.layers]
        self.record["seconds"] = round(time.perf_counter() - start, 3)
        for said in table.warnings(self.record):
            console.warn(said)
        return write_manifest(made.path, **{**_without(made.manifest, ("ernie",)), "quantization": self.record})

    # --- what everything is made from -----------------------------------------------------------------------------------

    @cached_property
    def float_model(self) -> Model:
        """The source as an ONNX folder: itself, or converted for as long as this work takes."""
        if self.plan.source.format == "onnx":
            return self.plan.source
        from .. import route

        console.info(f"converting {self.plan.source.path} to ONNX, to run it")
        return route.convert(self.plan.source.path, to="onnx", out=self.scratch / "float", options=route.Options(verify=False))

    @cached_property
    def data(self) -> tuple[Data, Data | None]:
        """What is calibrated on, and what is held back of it to measure on: nothing where there are other data for that."""
        from .calibrate.data import open_data

        found = open_data(self.options.data, self.float_model, self.options)
        console.info(f"calibrating on {found.said}")
        self.record["data"] = {"said": found.said, "digest": found.digest, "random": self.options.random_calibration}
        if self.options.eval_data or not self.options.measure or not self.options.data:
            return found, None
        return found.split(HELD_BACK)

    def chosen(self, graph: ir.Model) -> list[layers.Layer]:
        """See plan.py. Raises what that raises."""
        return chosen_layers(self.plan.source, graph, self.scheme, self.options)

    # --- the steps ------------------------------------------------------------------------------------------------------

    def _fold(self) -> None:
        """Smoothing, AWQ, GPTQ and mixing: they change the base, or how codes are made."""
        alpha = self.options.smoothing(decoder=is_decoder(self.plan.source))
        if self.scheme.activation and alpha != "off":
            self._smooth("auto" if alpha == "auto" else float(alpha))
        if self.scheme.weight and self.scheme.weight.block and (self.options.method, self.options.mix) != ("rtn", "none"):
            self._search()

    def _smooth(self, alpha: float | str) -> None:
        graph = self._opened()
        how = {"form": self._form, "kind": self.scheme.activation}
        found = smooth.apply(self.float_model, graph, self.chosen(graph), self.data[0], alpha, **how)
        self.record["smooth"], self.folded = found
        self.base = self._saved(graph, "smoothed")

    def _search(self) -> None:
        graph = self._opened()
        chosen = self.chosen(graph)
        model, data = (self.plan.source, ()) if self.options.method == "rtn" else (self.float_model, self.data[0])
        found = search.int4_plan(model, graph, chosen, data, self.options, self.scratch)
        self.makers, self.forms = found.makers, found.forms
        self.record["method"] = self.options.method
        if found.factors:
            self.folded = found.fold(graph, chosen)
            self.base = self._saved(graph, "folded")

    def _opened(self) -> ir.Model:
        """The base's graph, of an opset that has the scheme's types, with what stands in the way of pairs folded away."""
        graph = open_source(self.base)
        pairs.prepare(graph, self.scheme, {form.type for form in self.forms.values()}, said=str(self.plan.source.path))
        return graph

    def _saved(self, graph: ir.Model, name: str) -> Model:
        """A float graph as a model folder that lives as long as this work."""
        folder = self.scratch / name
        folder.mkdir()
        with console.progress("writing the changed model", None) as meter:
            written = write.save(graph, folder, name=FILE, advance=meter.advance, made=lambda *_: None)
        carried, _ = carry(self.plan.source.path, folder, rewritten=(FILE, f"{FILE}.data"))
        known = _without(self.float_model.manifest, _OWN)
        return write_manifest(folder, format="onnx", files={**written, **carried}, main=FILE, **known)

    def _find_scales(self) -> None:
        """Scales of activations and caches, from data."""
        kind = self.scheme.activation or self.scheme.cache
        if not kind:
            return

        graph = self._opened()
        names = pairs.measured(graph, self.scheme, self.chosen(graph))
        run = self.base if self.base.format == "onnx" else self.float_model
        data = None if self.options.scales else self.data[0]
        self.scales = activation_scales(run, names, kind, data, self.options)
        about = self.record.get("data", {"digest": "", "said": self.options.scales})
        self.record["scales"] = {"type": kind, "observer": self.options.observer, "values": self.scales}
        self.known_scales = Scales(self.scales, kind, self.options.observer, graph_digest(run), about["digest"], str(about["said"]))

    def build(self, reverted: frozenset[str]) -> Model:
        """Write the quantised folder, with the layers named in `reverted` left in float. What was built before goes away."""
        folder = self.scratch / "made"
        for old in folder.iterdir() if folder.exists() else ():
            old.unlink()
        folder.mkdir(exist_ok=True)
        graph = self._opened()
        chosen = [layer for layer in self.chosen(graph) if layer.name not in reverted]
        self.ends = {layer.name: (str(layer.activation.name), str(layer.node.outputs[0].name)) for layer in chosen}
        self.layers = {}
        before = cache.bytes_per_token(graph)
        pairs.put(graph, self.scheme, chosen, self.scales, lambda layer: self.forms.get(layer.name, self._form), self._codes)
        if self.scheme.cache:
            self.record["cache_bytes_per_token"] = {"before": before, "after": cache.bytes_per_token(graph)}
        if self.scheme.weight:
            tables.narrow_tables(graph)
        total = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value is not None)
        with console.progress("quantising", total, unit="bytes") as meter:
            written = write.save(graph, folder, name=FILE, advance=meter.advance, made=lambda *_: None)
        return self._papers(folder, written, graph.graph.opset_imports[""], "positions" in [value.name for value in graph.graph.inputs])

    @property
    def _form(self) -> WeightFormat:
        assert self.scheme.weight is not None
        return WeightFormat(self.scheme.weight.type, self.options.block if self.scheme.weight.block else 0)

    def _codes(self, layer: layers.Layer, form: WeightFormat) -> Codes:
        """A layer's codes, and a line in the record."""
        weight, maker = layer.read(), self.makers.get(layer.name)
        codes = maker(weight) if maker else edit.rounded(layer, form)
        self.layers[layer.name] = {
            "layer": layer.name,
            "operator": layer.node.op_type,
            "type": form.type,
            "block": form.block,
            "bytes": [layer.weight.const_value.nbytes if layer.weight.const_value else 0, codes.nbytes],
            "weight_sqnr_db": round(quality.weight_sqnr(weight, codes), 2),
        }
        return codes

    def _papers(self, folder: Path, written: Mapping[str, Any], opset: int, static: bool) -> Model:
        source = self.plan.source
        known = _without(source.manifest, _OWN)
        if source.format != "onnx":
            known = {"architecture": source.config().get("model_type"), "kv_cache": "static" if static else "growing"}
        carried, _ = carry(source.path, folder, rewritten=(FILE, f"{FILE}.data", SCALES))
        if self.known_scales:
            write_scales(folder / SCALES, self.known_scales)
            carried[SCALES] = facts_of(folder / SCALES)
        known |= {"main": FILE, "precision": self.scheme.name, "opset": opset, "quantization": self.record}
        return write_manifest(folder, format="onnx", files={**written, **carried}, **known)

    # --- measuring ------------------------------------------------------------------------------------------------------

    @cached_property
    def judge(self) -> measured.Judge:
        """What the result is measured on."""
        held = self.data[1] if self.options.data or self.scheme.needs_data else None
        return measured.Judge(self.float_model, held, self.options.eval_data, self.options.samples)

    def _fit(self, made: Model) -> Model:
        """Put layers back until no more than --max-drop is lost. Raises QualityError (exit 6) where that cannot be."""
        assert self.options.max_drop is not None
        metric = budget.choose(self.options.metric, language=self.judge.language)
        texts = self.judge.texts[0] if self.judge.language else None
        judge, baseline = quality.judge(self.float_model, metric, self.judge.feeds[0], texts=texts)

        def worst_first() -> list[str]:
            before = self.base if self.base.format == "onnx" else self.float_model
            alone = harm(before, made, list(self.layers), self.judge.feeds[0], seconds=HARM_SECONDS)
            beside = {} if alone else self.judge.measure_layers(made, self.ends, self.folded)
            return quality.by_damage({**each, **beside.get(name, {}), "harm": alone.get(name)} for name, each in self.layers.items())

        most = budget.parse_drop(self.options.max_drop)
        fitted = budget.fit(self.build, judge, baseline, worst_first, most, metric=metric, first=made)
        self.record["budget"] = fitted.as_dict()
        self.record["bytes"] = files.bytes_of(self.plan.source, fitted.model)
        return fitted.model

    def _measure(self, made: Model) -> None:
        if measured.too_large(self.float_model):
            console.warn("the whole model is not measured: memory does not hold it in float; --no-measure says so on purpose")
            self.record["measured_on"] = None
            return
        console.info("measuring what was lost and gained")
        self.record |= self.judge.measure(made)
        for name, figures in self.judge.measure_layers(made, self.ends, self.folded).items():
            self.layers[name] |= figures


def _without(manifest: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key not in names}
