"""Runs that are stopped before their end: by Ctrl-C or SIGTERM, by Prefect, on its page or by its API.

A signal makes the run's own thread raise `Stop`; the run notes that it was cancelled, leaves its record, and then its
process ends without waiting for what is under way (Prefect would wait for every shard; they are safe to leave). A run
that a worker started is told by the worker's signal. One that `ladm run` started on the user's own server has no
worker: it asks the server, every few seconds, whether somebody cancelled it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from ladm.flows.orchestration.environment import serves_itself
from ladm.tasks import stopping

PATIENCE_SECONDS = 10.0
"""How long a run that was stopped may take to leave its record, before its process ends without."""
ASKED_SECONDS = 5.0
"""Between two questions whether a run was cancelled."""


class Stop(BaseException):
    """Somebody stopped the run.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@dataclass
class _Signals:
    """What SIGINT and SIGTERM do in this process."""

    stop: Callable[[int, Any], None] | None = None
    """Their handler; None where they are left to Prefect."""
    interruptible: bool = False
    """Whether a run is going on that can be interrupted anywhere."""


_signals = _Signals()


def is_cancellation(error: BaseException) -> bool:
    """Whether a run ended because somebody stopped it: whatever is no error of the code's."""
    return not isinstance(error, Exception)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While open, a signal that `stopping_by_signals` takes raises `Stop` here, and not what Prefect makes of it."""
    if _signals.stop is None:
        yield
        return
    prefects = signal.signal(signal.SIGTERM, _signals.stop)
    _signals.interruptible = True
    try:
        yield
    finally:
        _signals.interruptible = False
        signal.signal(signal.SIGTERM, prefects)


@contextlib.contextmanager
def stopping_by_signals(leave: Callable[[int], None]) -> Iterator[None]:
    """Until the block ends, signals stop the run, or end the process at once where none can be stopped.

    They are SIGINT, SIGTERM and, but for what `nohup` started, SIGHUP: the terminal is gone.

    Args:
        leave: Ends the process; given the signal.
    """

    def stop(number: int, _frame: object) -> None:
        if not _signals.interruptible:  # nothing has begun, or this is the second signal
            leave(number)
            return
        _signals.interruptible = False
        stopping.ask()
        _after(PATIENCE_SECONDS, lambda: leave(number))
        raise Stop(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, *hangup())}
    _signals.stop = stop
    try:
        yield
    finally:
        _signals.stop = None
        for number, handler in before.items():
            signal.signal(number, handler)


def hangup() -> list[signal.Signals]:
    """SIGHUP, unless it is ignored."""
    return [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []


def _after(seconds: float, do: Callable[[], object]) -> None:
    late = threading.Timer(seconds, do)
    late.daemon = True
    late.start()


def end_soon(run: stopping.Stopping, error: BaseException) -> None:
    """Have what is under way of a run that was cancelled end; where a worker sent a signal, the process too, in time.

    Prefect's worker kills what has not ended after 30 seconds, and what is being written then is left behind.
    """
    run.ask()
    if type(error).__name__ == "TerminationSignal":  # Prefect's, of a process that is there for this run alone
        _after(PATIENCE_SECONDS, _end_at_once)


def _end_at_once() -> None:
    from ladm.tasks.storage.files import remove_unfinished  # noqa: PLC0415

    remove_unfinished()
    os._exit(128 + signal.SIGTERM)


@contextlib.contextmanager
def cancelled_by_server() -> Iterator[None]:
    """Until the block ends, a cancellation of this flow run on the user's own server sends this process SIGTERM.

    Nothing is asked where a worker started the run, which sends the signal itself, or the server is our own.
    """
    run = _flow_run()
    if _signals.stop is None or run is None or serves_itself():
        yield
        return
    over = threading.Event()

    def watch() -> None:
        from prefect.client.orchestration import get_client  # noqa: PLC0415

        with get_client(sync_client=True) as client:
            while not over.wait(ASKED_SECONDS):
                with contextlib.suppress(Exception):  # a server that is away for a while
                    state = client.read_flow_run(run.id).state
                    if state and (state.is_cancelling() or state.is_cancelled()):
                        os.kill(os.getpid(), signal.SIGTERM)
                        return

    threading.Thread(target=copy_context().run, args=(watch,), name="ladm-cancelled", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def tell_cancelled(message: str) -> None:
    """Tell the user's own server that this flow run is cancelled, if it answers soon: the process is about to end."""
    run = _flow_run()
    if run is None or serves_itself():
        return

    def tell() -> None:
        from prefect.client.orchestration import get_client  # noqa: PLC0415
        from prefect.states import Cancelled  # noqa: PLC0415

        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelled(message=message), force=True)

    telling = threading.Thread(target=copy_context().run, args=(tell,), daemon=True)
    telling.start()
    telling.join(PATIENCE_SECONDS / 2)


def _flow_run() -> Any:
    """The flow run that this is a part of; None if there is none."""
    from prefect.context import FlowRunContext  # noqa: PLC0415

    context = FlowRunContext.get()
    return context.flow_run if context else None
