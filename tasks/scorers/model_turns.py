"""The turns that passes take with a process's one model.

On a CPU two passes go side by side, each on half of the threads: a pass has many steps too small to keep all cores at
work, and where something else takes a core for a moment (Prefect, the next shard's tokenization), it holds up one pass
and not both, whose threads would wait for one another. A pass that has none beside it and none behind it gets all
threads. The numbers are the same either way. On a GPU passes go one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

AT_ONCE_ON_CPU = 2

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
        # Asked for its number once, a new thread no longer takes over the one that another thread sets meanwhile.
        pool = ThreadPoolExecutor(self.at_once, thread_name_prefix="pass", initializer=torch.get_num_threads)
        self._pool = pool if self.at_once > 1 else None
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
        futures = [self._pool.submit(self._in_turn, work, part) for part in parts]
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
            if self._pool is not None:
                torch.set_num_threads(share)  # of this thread; and of new ones, hence back again below
            return work(part)
        finally:
            if self._pool is not None:
                torch.set_num_threads(self.threads)
            self._ended()

    def _ended(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._alone = False
            self._changed.notify_all()
