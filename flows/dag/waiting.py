"""The jobs of a row that can be begun, and which of them is next.

A run begins them in the order in which they came up. Runs of one array of Slurm's do the same work on one store: each
begins with a part of its own, and goes on with the rest in an order of its own. What one has done the others find in
the store, so that together they do it about once, whatever becomes of any of them.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ladm.flows.dag.lineage import Request

DIGITS = 12
"""Of a key, for its place."""


class Share(NamedTuple):
    """Which run of an array this one is."""

    number: int
    """Counted from 0."""
    of: int

    def ahead(self, key: str) -> float:
        """How far ahead a job is by its key: below 1, if it is one of this run's own part."""
        if int(key[:DIGITS], 16) * self.of // 16**DIGITS == self.number:
            return _place(key)
        # Where runs had one order, those that have met would go on side by side, each doing what the others do.
        return 1 + _place(hashlib.sha256(f"{self.number} {key}".encode()).hexdigest())


def _place(digest: str) -> float:
    return int(digest[:DIGITS], 16) / float(16**DIGITS)


def share_of_array(environment: Mapping[str, str] = os.environ) -> Share | None:
    """What a run is to begin with as a job of an array of Slurm's; None of a run that is no part of one."""
    try:
        number, first, last = (int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN", "MAX"))
    except (KeyError, ValueError):
        return None
    return Share(number - first, last - first + 1) if first <= number <= last and first < last else None


class Waiting:
    """The jobs of a row that wait.

    Args:
        share: By which the next one is chosen; None: the job that came first.
    """

    def __init__(self, share: Share | None = None) -> None:
        self._share = share
        self._came = 0
        self._jobs: list[tuple[float, int, Request]] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, _, request in self._jobs)

    def add(self, request: Request) -> None:
        """One more."""
        self._came += 1
        ahead = self._share.ahead(request.key) if self._share else 0.0
        heapq.heappush(self._jobs, (ahead, self._came, request))

    def next(self) -> Request:
        """Take out the next one."""
        return heapq.heappop(self._jobs)[2]
