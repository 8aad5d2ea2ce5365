"""Work done ahead, beside the work on what came before it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items in their order, each made in a thread beside while the one before it is used.

    So the device does not wait for the next windows to be read, decompressed and stacked.
    """
    nothing_left = object()
    with ThreadPoolExecutor(1, thread_name_prefix="one-ahead") as maker:
        following = maker.submit(next, items, nothing_left)
        while (item := following.result()) is not nothing_left:
            following = maker.submit(next, items, nothing_left)
            yield cast(T, item)
