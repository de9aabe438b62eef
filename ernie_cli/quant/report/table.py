"""The record of a quantisation laid out for people: layers by damage, then what was lost and gained. Measures nothing."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ... import console
from ...tables import cell, sections
from .quality import MOST_DB, by_damage, sqnr_of
from .speed import NOISE, arrow, warning

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Record = Mapping[str, Any]
#: Layers shown without -v.
SHOWN = 15
_WIDEST_NAME, _TEXT_WIDTH, _BAR_CELLS = 44, 82, 14
#: A bar is full at so many dB: int8 weights have about 45, and no one hears of what lies above.
_FULL_DB = 50.0
#: Below these, in dB, what is left of a signal is little, or not all that much. 4-bit weights have 18 to 22.
_POOR_DB, _FAIR_DB = 12.0, 18.0


def render(record: Record, *, everything: bool | None = None) -> RenderableType:
    """The record that the manifest keeps under `quantization`, for `console.result`: good on a terminal and in a pipe.

    everything: all layers, not the worst 15 (default: with -v). Parts that were not measured are left out.
    """
    everything = console.settings.verbosity > 0 if everything is None else everything
    records = record.get("layers") or []
    outputs = (record.get("quality") or {}).get("outputs", {})
    return sections(
        (f"Layers, most damaged first ({len(records)} quantised)", layers(records, None if everything else SHOWN) if records else None),
        ("Outputs", _outputs(outputs) if len(outputs) > 1 else None),
        (f"{record.get('scheme', 'quantised')}: what it cost and gained", summary(record)),
    )


def warnings(record: Record) -> list[str]:
    """What a reader must be told even with -q: for `console.warn`."""
    found = []
    if (record.get("data") or {}).get("random"):
        found.append("calibrated on random numbers: ranges of activations are guesses; give --data")
    if record.get("speed"):
        types = frozenset(str(each.get("type", "")) for each in record.get("layers") or [])
        weights = record["bytes"]["weights"]["before"] if record.get("bytes") else 0
        found += [said] if (said := warning(record["speed"], types, weights)) else []
    return found


# --- layers -------------------------------------------------------------------------------------------------------------------------


def layers(records: Sequence[Record], most: int | None = None) -> RenderableType:
    """A row per layer, worst first. most: rows shown; what is left out is told in a line."""
    from rich.table import Table

    by_name = {str(each["layer"]): each for each in records}
    ordered = [by_name[name] for name in by_damage(records)]
    shown = ordered if most is None or len(ordered) <= most + 1 else ordered[:most]
    columns = _columns(records)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in columns:
        grid.add_column(title, justify="right" if title.endswith("dB") else "left", no_wrap=title != "layer", overflow="fold")
    names = shortened([str(each["layer"]) for each in shown])
    for each in shown:
        grid.add_row(cell(names[str(each["layer"])]), *(_shown(title, each) for title in columns[1:]))
    if len(shown) < len(ordered):
        grid.add_row(cell(_left_out(ordered[len(shown) :])))
    return grid


#: Title of a column → the figure in a layer's record.
_FIGURES = {"weights dB": "weight_sqnr_db", "output dB": "output_sqnr_db", "harm": "harm"}


def _columns(records: Sequence[Record]) -> list[str]:
    """Those of which at least one layer has something to say."""
    figures = [title for title, name in _FIGURES.items() if any(each.get(name) is not None for each in records)]
    kinds = ["type"] if len({each.get("type") for each in records}) > 1 else []
    return ["layer", *kinds, *figures, *(["SQNR"] if figures else []), "bytes"]


def _shown(title: str, record: Record) -> Text:
    from rich.text import Text

    if title == "SQNR":
        return Text(bar(sqnr_of(record)), style=_style(sqnr_of(record)))
    if title == "bytes":
        return cell(_bytes(record.get("bytes")))
    value = record.get(_FIGURES.get(title, title))
    if isinstance(value, float):
        return cell(f"{value:.1e}" if title == "harm" else f"{value:.1f}")
    return cell("–" if value is None else str(value))


def bar(db: float) -> str:
    """A bar, full at 50 dB, in eighths of a cell."""
    eighths = round(max(0.0, min(1.0, db / _FULL_DB)) * _BAR_CELLS * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _style(db: float) -> str:
    return "red" if db < _POOR_DB else "yellow" if db < _FAIR_DB else "green"


def _left_out(rest: Sequence[Record]) -> str:
    least = min(map(sqnr_of, rest))
    return f"… {len(rest)} more" + (f", all at {least:.0f} dB or above" if least < MOST_DB else "")


def _bytes(found: Any) -> str:
    return _sizes(*found) if isinstance(found, Sequence) else "" if found is None else console.size(found)


def shortened(names: Sequence[str]) -> dict[str, str]:
    """Names as a column shows them: without the path that all have in common, and cut where even so they are long, but no two alike."""
    parts = zip(*(re.split(r"(?<=[/.])", name) for name in names), strict=False)
    common = sum(len(same[0]) for same in itertools.takewhile(lambda same: len(set(same)) == 1, parts)) if len(names) > 1 else 0
    skip = common if max(map(len, names), default=0) > _WIDEST_NAME else 0
    for width in (_WIDEST_NAME, _WIDEST_NAME * 4 // 3):
        for ahead in (width - 1, width // 3):
            found = {name: _cut(name[skip:], width, ahead) for name in names}
            if len(set(found.values())) == len(found):
                return found
    return {name: _cut(name) for name in names}


def _cut(name: str, width: int = _WIDEST_NAME, ahead: int = _WIDEST_NAME // 3) -> str:
    """A long name's first cells (`ahead` of them) and last ones. Cells, for some letters take two."""
    from rich.cells import cell_len, set_cell_size

    name = console.printable(name)
    if cell_len(name) <= width:
        return name
    behind = set_cell_size(name[::-1], width - ahead - 1)[::-1]
    return f"{set_cell_size(name, ahead)}…{behind}"


# --- the whole ----------------------------------------------------------------------------------------------------------------------


def summary(record: Record) -> RenderableType:
    """One line per figure of the whole model: name, before → after, ratio."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, said, style in _lines(record):
        grid.add_row(Text(name, style="dim"), Text("\n".join(textwrap.wrap(console.printable(said), _TEXT_WIDTH)), style=style))
    return grid


def _lines(record: Record) -> Iterator[tuple[str, str, str]]:
    """(name, text, style) of each line."""
    yield from _quality(record.get("quality") or {})
    if record.get("bytes"):
        for name, title in (("files", "size"), ("weights", "weights alone")):
            found = record["bytes"][name]
            yield title, f"{_sizes(found['before'], found['after'])} ({found['ratio']:.2f}×)", ""
    if "cache_bytes_per_token" in record:
        found = record["cache_bytes_per_token"]
        yield "KV cache", f"{found['before']} → {found['after']} bytes per token ({found['after'] / max(1, found['before']):.2f}×)", ""
    yield from _speed(record.get("speed"))
    yield from _budget(record.get("budget"), record)
    data = record.get("data")
    if data and data.get("random"):
        yield "calibration", "RANDOM NUMBERS, not data: ranges of activations are guesses", "bold red"
    elif data:
        yield "calibration", str(data.get("said", "")), ""
    if "seconds" in record:
        yield "took", f"{record['seconds']:.1f} s", ""


def _quality(found: Record) -> Iterator[tuple[str, str, str]]:
    for name, title in (("perplexity", "perplexity"), ("answer_perplexity", "… of answers")):
        if found.get(name):
            a, b, ratio = (found[name][key] for key in ("before", "after", "ratio"))
            yield title, f"{_few(a)} → {_few(b)} (×{ratio:.4f})", "" if name != "perplexity" else _loss(ratio - 1)
    if found.get("kl") is not None:
        yield "KL", f"{found['kl']:.2g} nats per token, of the float model's predictions", ""
    if found.get("top1") is not None:
        yield "top-1", f"{found['top1']:.2%} of the likeliest tokens are the same", ""
    if found.get("exact_match"):
        exact = found["exact_match"]
        yield "exact match", f"{exact['before']:.1%} → {exact['after']:.1%} of {found['answers']} answers", ""
    if len(found.get("outputs", {})) == 1:
        ((name, each),) = found["outputs"].items()
        yield "output", f"{_cut(str(name))}: {', '.join(_similar(each))}", ""


def _similar(each: Record) -> list[str]:
    snr = each.get("snr_db")
    same = [f"top-1 {each['top1']:.1%} the same"] if each.get("top1") is not None else []
    return [f"cosine {each['cosine']:.6f}", "exact" if snr is None else f"SNR {snr:.1f} dB", *same]


def _outputs(found: Mapping[str, Record]) -> RenderableType:
    from ...tables import table

    rows = [(_cut(name), *(said.removesuffix(" the same").split(" ", 1)[-1] for said in _similar(each))) for name, each in found.items()]
    width = max(map(len, rows))
    return table(("output", "cosine", "SNR", "top-1")[:width], [(*row, *("–",) * (width - len(row))) for row in rows])


def _speed(found: Record | None) -> Iterator[tuple[str, str, str]]:
    if not found:
        return
    for name, ratio in found["ratio"].items():
        key, unit, title = ("ms", "ms per run", "speed") if name == "run" else (f"{name}_tok_s", "tok/s", name)
        slow = ratio < 1 + NOISE
        text = f"{arrow(found['before'][key], found['after'][key])} {unit} ({ratio:.2f}×{', not faster here' if slow else ''})"
        yield title, text, "yellow" if slow else "green"
    yield "measured", str(found.get("how", "")), "dim"


def _budget(found: Record | None, record: Record) -> Iterator[tuple[str, str, str]]:
    if not found:
        return
    from ..budget import percent

    count = len(found["reverted"])
    total = count + len(record.get("layers") or [])
    yield "budget", f"{found['metric']}: {percent(found['drop'])} lost of {percent(found['max_drop'])} allowed", ""
    if count:
        names = ", ".join(found["reverted"][:8]) + (f", … {count - 8} more" if count > 8 else "")
        yield "reverted", f"{count} of {total} layers stay in float: {names}", ""


def _loss(share: float) -> str:
    """Green to 1 %, red from 5 % on."""
    return "green" if share <= 0.01 else "yellow" if share <= 0.05 else "red"


def _few(value: float) -> str:
    """Perplexities: three decimals where they are small."""
    return f"{value:.3f}" if value < 100 else f"{value:.4g}"


def _sizes(before: float, after: float) -> str:
    """ "6.7 → 2.6 MB", each with its unit where they differ."""
    a, b = console.size(before), console.size(after)
    return f"{a.split()[0]} → {b}" if a.split()[1] == b.split()[1] else f"{a} → {b}"
