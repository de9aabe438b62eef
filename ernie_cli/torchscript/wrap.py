"""Puts a module whose forward torch.onnx cannot write into one that it can: tensors in, a flat tuple of tensors out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..need import need
from .signature import Signature

#: What the wrapper calls the module: weights' names in the ONNX file begin with it until `export` takes it away.
INNER = "ernie_inner"


def needs_wrapping(told: Signature, result: Any) -> bool:
    """Whether forward has arguments that are left out, or gives anything else than a tensor or a tuple of tensors."""
    tensor = need("torch").Tensor
    flat = isinstance(result, tensor) or (isinstance(result, tuple) and all(isinstance(part, tensor) for part in result))
    return not flat or any(argument.input is None for argument in told.arguments)


def wrapped(module: Any, told: Signature, result: Any) -> Any:
    """A ScriptModule around `module`. result: of one run, which shows what forward gives."""
    torch = need("torch")
    names = [f"x{place}" for place in range(len(told.inputs))]
    arguments = [f"x{argument.input}" if argument.input is not None else repr(argument.default) for argument in told.arguments]
    parts = list(_parts(result, "r", module.forward.schema.returns[0].type))
    # Arguments are annotated Tensor; an Optional parameter takes one as well.
    source = [
        f"def forward(self, {', '.join(f'{name}: Tensor' for name in names)}):",
        f"    r = self.{INNER}({', '.join(arguments)})",
        f"    return {', '.join(parts)}" if len(parts) == 1 else f"    return ({', '.join(parts)})",
    ]
    holder = torch.nn.Module()
    setattr(holder, INNER, module)
    outer = torch.jit.script(holder)
    outer.define("\n".join(source) + "\n")
    return outer.eval()


def _parts(result: Any, expression: str, type_: Any) -> Iterator[str]:
    """TorchScript expressions for every tensor in a result, in the order of arrays.flatten."""
    torch = need("torch")
    if result is None:
        return
    if type_.kind() == "OptionalType":
        expression, type_ = f"torch.jit._unwrap_optional({expression})", type_.getElementType()
    if isinstance(result, torch.Tensor):
        yield expression
    elif isinstance(result, bool | int | float):
        yield f"torch.tensor({expression})"
    elif isinstance(result, Mapping):
        for key, part in result.items():
            yield from _parts(part, f"{expression}[{key!r}]", type_.getValueType())
    else:
        inner: Sequence[Any] = type_.elements() if type_.kind() == "TupleType" else [type_.getElementType()] * len(result)
        for place, part in enumerate(result):
            yield from _parts(part, f"{expression}[{place}]", inner[place])
