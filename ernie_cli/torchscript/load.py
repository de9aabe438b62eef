"""Opens a TorchScript file with torch after archive.py and pickled.py have looked at all of it; translates torch's exceptions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..checkpoint.quote import short
from ..errors import ErnieError, InputError, MissingError, ResourceError, UnsupportedError, UsageError
from ..need import need
from .archive import opened, verify
from .contents import Contents, contents

_AGAIN = "save it again: torch.jit.script(module).save('model.pt')"


def load(file: Path, device: str = "cpu") -> tuple[Any, Contents]:
    """The module in `file`, in eval mode, on `device` (cpu, cuda or cuda:N), and what its pickles say.

    Raises InputError for files that are damaged, or no TorchScript; UnsupportedError for operators or classes that this torch
    lacks; ResourceError out of memory; MissingError without torch.
    """
    torch = need("torch")
    with opened(file) as archive:
        found = contents(archive)
        problems = [tensor.problem for tensor in found.tensors if tensor.problem]
        if problems:
            raise InputError(f"{file}: {'; '.join(problems[:3])}", _AGAIN)
        verify(archive)
    try:
        module = torch.jit.load(str(file), map_location=device)
    except Exception as err:  # torch raises RuntimeError, ValueError, IndexError and more for the same file
        raise translated(file, err) from err
    if not hasattr(module, "forward"):
        raise InputError(f"{file}: a module without `forward`", "save a module that can be called")
    return module.eval(), found


def where(device: str) -> str:
    """The torch device for what a person asked for. Raises UsageError, or MissingError where there is no such GPU."""
    torch = need("torch")
    wanted, _, number = device.partition(":")
    if wanted not in ("auto", "cpu", "cuda") or (number and not number.isdecimal()):
        raise UsageError(f"the torchscript backend runs on cpu or cuda, not `{device}`", "--device auto chooses")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count():
        raise MissingError(f"this torch has no device `{device}`", "--device cpu, or a torch for CUDA: https://pytorch.org/get-started")
    return f"cuda:{number}" if number else "cuda"


def translated(file: Path, err: Exception) -> ErnieError:
    """What torch's exception on loading or running means here."""
    text = str(err)
    if found := re.search(r"Unknown builtin op: ([\w:.]+)", text):
        return UnsupportedError(f"{file}: the operator {found[1]} is not in this torch", "make the module without it")
    if found := re.search(r"Unknown type name '([^']+)'|class '([^']*torch\.classes[^']*)'", text):
        return UnsupportedError(f"{file}: the class {short(found[1] or found[2])} is not in this torch", "make the module without it")
    if found := re.search(r"(?:file|model|archive) with version (\d+)", text):
        return InputError(f"{file}: of version {found[1]}, which this torch does not read", "pip install -U torch")
    if isinstance(err, MemoryError) or "not enough memory" in text or ("alloc" in text and "memory" in text):
        return ResourceError(f"{file}: out of memory: {said(err)}", "a smaller batch, or a machine with more memory")
    return InputError(f"{file}: torch cannot read it: {said(err)}", _AGAIN)


def said(err: BaseException) -> str:
    """The line of torch's message that says what is wrong: behind the TorchScript traceback where there is one."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(?:Error|Exception):", line)]
    line = (named or lines or [type(err).__name__])[-1 if named else 0]
    return "".join(char if char.isprintable() else " " for char in line)[:240]
