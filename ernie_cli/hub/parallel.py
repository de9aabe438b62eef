"""Several pieces of blocking work at once, the first failure ending all. Knows nothing of what the work is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], threads: int, stop: threading.Event) -> list[Result]:
    """`work(item)` for every item, in threads; the results in the items' order.

    The first exception (Ctrl-C included) sets `stop`, which `work` must heed, and is raised. The threads are daemons,
    not an executor's: one that waits on a dead connection must not keep the process from ending.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Result | None, BaseException | None]] = queue.SimpleQueue()
    for number in range(len(items)):
        todo.put(number)

    def worker() -> None:
        while not stop.is_set():
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, work(items[number]), None))
            except BaseException as err:  # noqa: BLE001 (raised again by the caller's thread)
                done.put((number, None, err))

    workers = [threading.Thread(target=worker, daemon=True) for _ in range(min(threads, len(items)))]
    results: dict[int, Result] = {}
    try:
        for thread in workers:
            thread.start()
        while len(results) < len(items):
            number, result, err = done.get()
            if err is not None:
                raise err
            results[number] = result  # type: ignore[assignment]  # None only beside an error
    except BaseException:
        stop.set()
        for thread in workers:
            thread.join(timeout=0.5)
        raise
    return [results[number] for number in range(len(items))]
