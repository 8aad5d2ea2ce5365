"""How a stage tells a watching console how far it is, without knowing whether anybody watches.

The flow sets a listener; Prefect copies context variables into its task threads, so a stage's reports reach it.
In another process (a Ray worker) there is no listener and a report does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int], None]

listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def nobody_listening() -> Iterator[None]:
    """While open, what is begun reports to nobody."""
    token = listener.set(None)
    try:
        yield
    finally:
        listener.reset(token)


def report(stage: str, units: int) -> None:
    """Tell the listener, if there is one, that `stage` has finished that many more windows; `ingest`, stored bytes."""
    listen = listener.get()
    if listen:
        listen(stage, units)
