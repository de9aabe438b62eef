"""What the bar shows: of a build as it was seen, and of any order of events."""

from __future__ import annotations

import itertools
import random

import pytest

from ernie_cli.engine.progress import Pace, Phases

#: What TensorRT-RTX 1.7 tells of a build with two profiles: (event, phase, parent, steps). A number is that many steps in a row.
SEEN = [
    ("start", "Building engine", None, 6),
    ("start", "Cloning network graph", "Building engine", 664),
    (664, "Cloning network graph"),
    (1, "Building engine"),
    ("finish", "Cloning network graph"),
    (1, "Building engine"),
    ("start", "Preparing graph for optimization", "Building engine", 4),
    (4, "Preparing graph for optimization"),
    ("finish", "Preparing graph for optimization"),
    (2, "Building engine"),
    ("start", "Building engine from subgraph", "Building engine", 1),
    ("start", "Optimizing graph", "Building engine from subgraph", 30),
    (30, "Optimizing graph"),
    ("finish", "Optimizing graph"),
    ("start", "Computing profile costs", "Building engine from subgraph", 10),
    *2
    * (
        ("start", "Timing tactics", "Computing profile costs", 3),
        ("start", "Timing graph nodes", "Timing tactics", 28),
        (28, "Timing graph nodes"),
        (1, "Timing tactics"),
        ("finish", "Timing graph nodes"),
        (1, "Timing tactics"),
        ("finish", "Timing tactics"),
        (3, "Computing profile costs"),
        ("start", "Determining refit engines", "Computing profile costs", 1),
        ("silence",),  # the profile's kernels are compiled
        (1, "Determining refit engines"),
        (2, "Computing profile costs"),
        ("finish", "Determining refit engines"),
    ),
    ("finish", "Computing profile costs"),
    (1, "Building engine from subgraph"),
    ("finish", "Building engine from subgraph"),
    (1, "Building engine"),
    ("finish", "Building engine"),
]


def replayed(events):
    """Shares after each event; of "silence" the two of the one before."""
    phases, told = Phases(), [(0.0, 0.0)]
    for event, *rest in events:
        if event == "start":
            told.append(phases.start(*rest))
        elif event == "finish":
            told.append(phases.finish(*rest))
        elif event != "silence":
            told += [phases.step(*rest) for _ in range(event)]
    return told


def test_a_build_as_it_was_seen():
    told = replayed(SEEN)
    shares = [now for now, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1
    silences = [replayed(SEEN[:place])[-1] for place, event in enumerate(SEEN) if event == ("silence",)]
    first, second = (ahead - now for now, ahead in silences)
    assert first > 0.3 and second > 0.3  # compiling is nearly all of it
    assert silences[0][1] <= silences[1][0]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_told_it_never_falls(seed):
    draw = random.Random(seed)
    names = [f"phase {i}" for i in range(5)]
    phases, told = Phases({names[1]: lambda step: 1.0 + 9 * (step == 2)}), [(0.0, 0.0)]
    for _ in range(200):
        name, parent = draw.choice(names), draw.choice([None, *names])
        event = draw.choice(["start", "step", "step", "step", "finish"])
        told.append(phases.start(name, parent, draw.randrange(-1, 9)) if event == "start" else getattr(phases, event)(name))
    assert all(0 <= a[0] <= b[0] <= b[1] <= 1 for a, b in itertools.pairwise(told))


def test_in_silence_the_bar_goes_on_but_not_to_the_end():
    pace = Pace()
    pace.heard(0.1, 0.5, time=0.0)
    shown = [pace.share(time) for time in (0, 1, 2, 10, 1000)]
    assert shown == sorted(shown) and shown[0] == 0.1 and shown[1] > 0.1 and shown[-1] < 0.5
    pace.heard(0.2, 0.5, time=1000.0)
    assert pace.share(1000.0) == shown[-1]


def test_one_silence_teaches_how_long_the_next_lasts():
    pace = Pace()
    pace.heard(0.1, 0.5, time=0.0)
    pace.heard(0.5, 0.9, time=100.0)
    after_a_while = pace.share(110.0)
    assert 0.5 < after_a_while < 0.6
