"""Several windows at once on the cores of one CPU, for passes that are not batched.

A pass of one window has many steps too small to keep all cores at work. Windows side by side, each on its share of
the threads, take an eighth less time on two cores, give the same numbers, and need the memory of as many passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

AT_ONCE = 4

Window = TypeVar("Window")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Window], Result], windows: Sequence[Window], device: str
) -> Iterator[tuple[Result, int]]:
    """What `work` makes of each window, in their order, and how many were under way at once.

    Args:
        work: Puts one window through the model; called from several threads on a CPU, one after the other elsewhere.
        windows: The windows. Those that are too few to fill another round go one by one, on all threads.
        device: Where the model is.
    """
    threads = torch.get_num_threads()
    at_once = min(AT_ONCE, threads, len(windows)) if device == "cpu" else 1
    in_rounds = len(windows) - len(windows) % at_once if at_once > 1 else 0
    if in_rounds:
        share = max(1, threads // at_once)
        try:
            with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(share,)) as pool:
                for result in pool.map(work, windows[:in_rounds]):
                    yield result, at_once
        finally:
            torch.set_num_threads(threads)  # a new thread's share would be that of the last one to ask
    for window in windows[in_rounds:]:
        yield work(window), 1
