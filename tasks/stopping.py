"""How a run is told to stop before its end, and how what is under way hears of it within seconds.

A run's own thread asks; its jobs look between steps that take no more than a second or two: a batch of records, a layer
of the model, a block of its attention. Statements of DuckDB are interrupted. What a job had written is safe to leave:
nothing counts before its record is there. Jobs know their run by a context variable, which Prefect hands on to its task
threads; in another process (a Ray worker) nobody asks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

PAUSE_SECONDS = 0.2
"""Between two times that what is under way is told."""
TOLD_SECONDS = 60.0
"""For so long."""


class StoppedError(Exception):
    """A job ended before its end since its run was told to stop. It is never tried again."""


class Stopping:
    """Whether one run was told to stop, and who is to be told of it."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._lock = threading.RLock()  # a signal may come while its own thread holds it
        self._told: list[Callable[[], object]] = []

    def ask(self) -> None:
        """Tell all that is under way to stop."""
        if not self._asked.is_set():
            self._asked.set()
            threading.Thread(target=self._tell, name="ladm-stopping", daemon=True).start()

    def check(self) -> None:
        """Go on, unless the run was told to stop.

        Raises:
            StoppedError: It was.
        """
        if self._asked.is_set():
            raise StoppedError("the run was stopped")

    @contextlib.contextmanager
    def telling(self, tell: Callable[[], object]) -> Iterator[None]:
        """While open, `tell` is called, from another thread, when the run is told to stop."""
        with self._lock:
            self._told.append(tell)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._told.remove(tell)

    def _tell(self) -> None:
        """Tell those that want to be told, again and again: what DuckDB hears between two statements it forgets."""
        late = time.monotonic() + TOLD_SECONDS
        while time.monotonic() < late:
            with self._lock:
                told = list(self._told)
            for tell in told:
                with contextlib.suppress(Exception):  # one that is just ending
                    tell()
            time.sleep(PAUSE_SECONDS)


_of_this_run: ContextVar[Stopping | None] = ContextVar("stopping", default=None)


@contextlib.contextmanager
def stoppable(stopping: Stopping) -> Iterator[None]:
    """While open, what begins here, in this thread and in the tasks that it submits, can be told to stop."""
    token = _of_this_run.set(stopping)
    try:
        yield
    finally:
        _of_this_run.reset(token)


def ask() -> None:
    """Tell all that is under way in this run to stop; nothing where there is no run."""
    if stopping := _of_this_run.get():
        stopping.ask()


def check() -> None:
    """Go on, unless the run was told to stop; `StoppedError` if it was."""
    if stopping := _of_this_run.get():
        stopping.check()


def telling(tell: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
    """While open, `tell` is called, from another thread, when the run is told to stop."""
    stopping = _of_this_run.get()
    return stopping.telling(tell) if stopping else contextlib.nullcontext()
