"""The jobs of a run that are under way: handed over, and not taken in yet."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ladm.flows.dag.crew import Crew
from ladm.flows.dag.lineage import Request
from ladm.flows.dag.rows import Row
from ladm.flows.dag.stages import BY_NAME
from ladm.tasks.progress import nobody_listening

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture


class UnderWay:
    """The jobs that are under way.

    Args:
        start: Starts those who do the jobs, and is called before each job is handed over.
    """

    def __init__(self, start: Callable[[], Crew]) -> None:
        self._start = start
        self._running: Counter[str] = Counter()
        self._finished: SimpleQueue[tuple[PrefectFuture[Any], Request]] = SimpleQueue()

    def __len__(self) -> int:
        return self._running.total()

    def has_room(self, row: Row) -> bool:
        """Whether one more job of a row may be under way."""
        return self._running[row.name] < self._start().most(row)

    def submit(self, request: Request) -> None:
        """Hand a job to Prefect."""
        runner, tasks = self._start()
        self._running[request.row] += 1
        holds_model = BY_NAME[request.row].holds_model
        with nobody_listening() if request.early else contextlib.nullcontext():
            future = runner.submit(tasks[request.job.stage], request.job, holds_model=holds_model)
        future.add_done_callback(lambda done: self._finished.put((done, request)))

    def next(self, seconds: float | None = None) -> tuple[PrefectFuture[Any], Request] | None:
        """The next job that is finished; None if none is within so many seconds."""
        try:
            future, request = self._finished.get(timeout=seconds)
        except Empty:
            return None
        self._running[request.row] -= 1
        future.wait()  # or `state` would ask the server, which may not know yet
        return future, request
