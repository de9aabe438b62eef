"""Raises a graph to the opset that Q/DQ of narrow types needs. What operators mean changes between opsets, so they are rewritten."""

from __future__ import annotations

import logging

import onnx_ir as ir

from ..errors import UnsupportedError
from ..need import need


def raise_opset(model: ir.Model, lowest: int, *, said: str = "the model") -> None:
    """Bring `model` to opset `lowest` in place, unless it is there already. Before layers are found: nodes may be made anew.

    said: what errors call it. Values keep their names, weights are not touched. Raises UnsupportedError where onnx's converter cannot.
    """
    before = model.graph.opset_imports.get("", 0)
    if before >= lowest:
        return
    converter = need("onnxscript.version_converter")
    logging.getLogger("onnxscript.version_converter").setLevel(logging.ERROR)  # it warns that it uses onnx's own converter
    what = f"{said}: its operators are of opset {before}, quantised ones need {lowest}, and onnx cannot convert it"
    hint = f"export the model with opset {lowest} or newer"
    try:
        converter.ConvertVersionPass(target_version=lowest, fallback=True)(model)
    except Exception as err:  # onnx's RuntimeErrors, onnx-ir's PassError, onnxscript's own: no common base
        reason = str(err.__cause__ or err).strip().splitlines()
        raise UnsupportedError(f"{what}: {reason[0] if reason else type(err).__name__}", hint) from err
    if model.graph.opset_imports.get("", 0) < lowest:
        raise UnsupportedError(what, hint)
