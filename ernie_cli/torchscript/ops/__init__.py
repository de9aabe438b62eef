"""Operators of ONNX's default domain: one file per family, each with RULES: operator → function that writes the torch expression.

For a node with one output the expression is that output; for several, a tuple of exactly as many (`node.n_outputs`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache

from ..node import Node

Rule = Callable[[Node], str]


@cache
def rules() -> Mapping[str, Rule]:
    """Every operator's rule, from the RULES of all modules of this folder. Two rules for one operator are a bug."""
    found: dict[str, Rule] = {}
    for module in pkgutil.iter_modules(__path__):
        for name, rule in getattr(importlib.import_module(f"{__package__}.{module.name}"), "RULES", {}).items():
            if name in found:
                raise AssertionError(f"{name} has a rule in {module.name} and another before it")
            found[name] = rule
    return found
