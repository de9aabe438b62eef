"""Ctrl-C while the model works: first a wish, then an order."""

from __future__ import annotations

import signal
import threading

import pytest

from ernie_cli.generation.interrupt import listening


def test_the_first_is_heard_and_the_second_obeyed() -> None:
    before = signal.getsignal(signal.SIGINT)
    with listening() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with listening() as pressed:
        assert not pressed()  # each reply listens anew


def test_other_threads_do_without() -> None:
    heard: list[bool] = []

    def work() -> None:
        with listening() as pressed:
            heard.append(pressed())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]
