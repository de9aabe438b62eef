"""Looks at the code in an archive before torch's parser does, which recurses with what it reads and dies where the stack ends.

Found by trying (torch 2.13, a stack of 8 MB): 1000 operators in one expression or 1000 brackets in each other are read, 20,000
end the process; 300 definitions each using the next are read, 3000 end it. Real models: 80 columns, nesting below 20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError

_AGAIN = "save it again: torch.jit.script(module).save('model.pt')"
#: Operators that read or write files when the model runs: no model needs them, so none may have them.
_FILES = re.compile(r"(?<![\w.])(?:torch|ops\.aten)\.(save|from_file)\(")
_MOST_NESTING = 100
#: Blocks are nested by if and for; torch indents by two columns.
_MOST_COLUMNS = 2 * _MOST_NESTING
_MOST_OPERATORS = 1000
_MOST_CHAIN = 250
_TOKEN = re.compile(
    r"(?P<text>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<open>[(\[{])|(?P<follow>[)\]}](?=[ \t]*[(\[]))|(?P<close>[)\]}])|(?P<line>\n[ ]*)"
    r"|(?P<list>[,=(\[]\s*-(?=[\d.]))|(?P<operator>[-+*/%&|^~<>.](?!\d)|\b(?:and|or|not|if|else|in|is|lambda)\b|==|!=)"
)
_DEFINITION = re.compile(r"^(?:class|def) (\w+)", re.MULTILINE)
_REFERENCE = re.compile(r"__torch__(?:\.\w+)+")


def check(file: Path, code: Mapping[str, str]) -> None:
    """Raise InputError for code that opens files, or that is too deep for torch's parser. code: file name → source."""
    for name, text in code.items():
        if found := _FILES.search(text):
            raise InputError(f"{file}: code/{name[:80]} calls torch.{found[1]}, which opens files", "do not trust this model")
        if _too_deep(text):
            raise InputError(f"{file}: code/{name[:80]} is nested too deeply to be read", _AGAIN)
    if _longest_chain(code) > _MOST_CHAIN:
        raise InputError(f"{file}: more than {_MOST_CHAIN} definitions in it use each other in a row: not a model", _AGAIN)


def _too_deep(text: str) -> bool:
    """Whether brackets or blocks are too many in each other, or operators too many in one statement."""
    depth = operators = 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "open" or kind == "list":
            depth += token[0][0] in "([{"
        elif kind in ("close", "follow"):
            depth = max(0, depth - 1)
            operators += kind == "follow"
        elif kind == "operator":
            operators += 1
        elif kind == "line" and depth == 0:
            operators = 0
        if depth > _MOST_NESTING or operators > _MOST_OPERATORS or (kind == "line" and len(token[0]) > _MOST_COLUMNS):
            return True
    return False


def _longest_chain(code: Mapping[str, str]) -> int:
    """Definitions that use each other in a row: torch reads each from within the one that names it."""
    uses = _uses(code)
    depth: dict[str, int] = {}
    for start in uses:
        pending = [start]
        while pending:
            at = pending[-1]
            new = [name for name in uses[at] if name not in depth] if at not in depth else []
            if at not in depth:
                depth[at] = 0  # being looked at: a circle counts as an end
                pending += new
            else:
                pending.pop()
                depth[at] = 1 + max((depth[name] for name in uses[at]), default=0)
    return max(depth.values(), default=0)


def _uses(code: Mapping[str, str]) -> dict[str, set[str]]:
    """Definition → the definitions that its text names, by qualified name: class Net in __torch__/a.py is __torch__.a.Net."""
    bodies: dict[str, str] = {}
    for name, text in code.items():
        place = name.removesuffix(".py").replace("/", ".")
        found = list(_DEFINITION.finditer(text))
        ends = [*(one.start() for one in found[1:]), len(text)]
        bodies |= {f"{place}.{one[1]}": text[one.start() : end] for one, end in zip(found, ends, strict=False)}
    return {name: {used for used in _REFERENCE.findall(body) if used in bodies and used != name} for name, body in bodies.items()}
