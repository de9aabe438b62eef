"""The embedded model `ernie-4.5-nano`: a real, trained ERNIE 4.5 decoder small enough to ship.

Only finds the files. How they were made is `train.py`; importing this loads neither torch nor transformers.
"""

import json
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def path() -> Path:
    """The folder with the shipped checkpoint: Hugging Face layout, bfloat16, tokenizer in both forms."""
    return _HERE / "checkpoint"


def speaks(folder: Path) -> bool:
    """Whether the model in `folder` has the nano's tokenizer: what was converted or quantised from it has."""
    theirs, ours = folder / "tokenizer.json", path() / "tokenizer.json"
    return theirs.is_file() and theirs.stat().st_size == ours.stat().st_size and theirs.read_bytes() == ours.read_bytes()


def heldout() -> list[dict[str, str]]:
    """The questions never seen in training: `prompt`, `answer`, `task`, `lang` (en, zh), `form` (chat, raw)."""
    return _lines("heldout.jsonl")


def calibration() -> list[dict[str, str]]:
    """Texts of the training distribution, field `text`, special tokens spelled out: to choose quantisation ranges on."""
    return _lines("calibration.jsonl")


def _lines(name: str) -> list[dict[str, str]]:
    # Split on "\n" alone: a JSON string may hold other line separators.
    return [json.loads(line) for line in (_HERE / name).read_text(encoding="utf-8").split("\n") if line]
