"""The turns that passes take with a process's one model, and the threads that each has: PyTorch's are shared out here.

On a CPU passes go side by side, each on its share of the threads: a pass has many steps too small to keep all cores at
work, and where something else takes a core for a moment (Prefect, the next shard's tokenization), it holds up one pass
and not all, whose threads would wait for one another. Stages take `Turns`, two at once; a pass that has none beside it
and none behind it gets all threads. What has the model for itself, and puts windows through it that are not batched,
takes `side_by_side`: four at once need an eighth less time on two cores, and the memory of as many passes. The numbers
are the same either way. On a GPU passes go one after the other.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

import torch

AT_ONCE_ON_CPU = 2
WINDOWS_AT_ONCE = 4

Part = TypeVar("Part")
Result = TypeVar("Result")


class Turns:
    """Hands out turns with a model.

    Args:
        threads: PyTorch's threads in all.
        at_once: Passes side by side; 1 leaves PyTorch's threads as they are.
    """

    def __init__(self, threads: int, at_once: int) -> None:
        self.threads = threads
        self.at_once = max(1, min(at_once, threads))
        self._pool = _pool(self.at_once) if self.at_once > 1 else None
        self._changed = threading.Condition()
        self._waiting = 0
        self._under_way = 0
        self._alone = False

    def each(self, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """What `work` makes of each part, in their order; it puts a part through the model once or more."""
        with self._changed:
            self._waiting += len(parts)
        if self._pool is None:
            return [self._in_turn(work, part) for part in parts]
        # In the context of the job: by it a pass hears that its run was told to stop.
        futures = [self._pool.submit(copy_context().run, self._in_turn, work, part) for part in parts]
        for future in futures:
            future.exception()  # none is left at work when the first error is raised
        return [future.result() for future in futures]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While open, no other pass is under way, and no thread's number of threads is changed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)
            self._under_way, self._alone = 1, True
        try:
            yield
        finally:
            self._ended()

    def _in_turn(self, work: Callable[[Part], Result], part: Part) -> Result:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and self._under_way < self.at_once)
            self._waiting -= 1
            self._under_way += 1
            self._alone = self._under_way == 1 and not self._waiting
            share = self.threads if self._alone else self.threads // self.at_once
        try:
            return work(part) if self._pool is None else _on_threads(share, self.threads, work, part)
        finally:
            self._ended()

    def _ended(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._alone = False
            self._changed.notify_all()


def side_by_side(work: Callable[[Part], Result], windows: Sequence[Part], device: str) -> Iterator[tuple[Result, int]]:
    """What `work` makes of each window, in their order, and how many were under way at once.

    Args:
        work: Puts one window through the model; called from several threads on a CPU, one after the other elsewhere.
        windows: The windows. Those that are too few to fill another round go one by one, on all threads.
        device: Where the model is.
    """
    threads = torch.get_num_threads()
    at_once = min(WINDOWS_AT_ONCE, threads, len(windows)) if device == "cpu" else 1
    in_rounds = len(windows) - len(windows) % at_once if at_once > 1 else 0
    if in_rounds:
        one_of_them = functools.partial(_on_threads, max(1, threads // at_once), threads, work)
        with _pool(at_once) as pool:
            for result in pool.map(one_of_them, windows[:in_rounds]):
                yield result, at_once
    for window in windows[in_rounds:]:
        yield work(window), 1


def _pool(at_once: int) -> ThreadPoolExecutor:
    """Threads for so many passes."""
    # Asked for its number once, a new thread no longer takes over the one that another thread sets meanwhile.
    return ThreadPoolExecutor(at_once, thread_name_prefix="pass", initializer=torch.get_num_threads)


def _on_threads(share: int, whole: int, work: Callable[[Part], Result], part: Part) -> Result:
    """What `work` makes of a part on `share` of PyTorch's `whole` threads."""
    torch.set_num_threads(share)  # of this thread; and of new ones, hence back again below
    try:
        return work(part)
    finally:
        torch.set_num_threads(whole)
