"""Marks in a store: which runs are going on, so that `ladm gc` leaves what they may use.

A run keeps `runs/<run_id>/in-use.json` from its first look at the store until its record is written, and renews the
mark every minute. Which shards it will reuse shows only as it gets to them, since each key depends on what the stages
before it gave. Therefore a mark stands for the whole store: while a run is going on, no shard is deleted.

`ladm gc` marks the store too, and a run that begins meanwhile waits for its end. Whoever marks the store does so
before it looks for the marks of others; so of a run and a collection that begin at once, at least one sees the other.

A process may end without taking its mark away. On the machine where it ran, a mark counts while there is a process of
that number which was started then; elsewhere (another container too), while it was renewed in the last 15 minutes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from pydantic import Field

from ladm.tasks.settings import Closed
from ladm.tasks.storage.file_systems import io_errors
from ladm.tasks.storage.listing import StoredFile
from ladm.tasks.storage.store import Store

RENEWED_SECONDS = 60.0
"""Between two renewals of a mark."""
STALE_SECONDS = 15 * 60.0
"""A mark of another machine that was not renewed for so long is that of a process that is gone."""
PAUSE_SECONDS = 1.0
"""Between two looks at whether a collection has ended."""
COLLECTOR = "gc-"
"""How the name of a collection begins, where a run has its id."""


class Mark(Closed):
    """Who uses a store."""

    run_id: str
    host: str
    """Its name, for people."""
    machine: str
    """What tells the machine, since it was started, and the container from every other."""
    pid: int = Field(gt=0)
    process: str
    """When the process was started, as its machine says it."""
    started: float
    """Seconds since 1970."""
    renewed: float
    """Seconds since 1970."""

    def is_live(self, now: float) -> bool:
        """Whether the process that made the mark still runs, as far as can be told from here.

        Args:
            now: Seconds since 1970.
        """
        if self.machine == this_machine():
            process = process_started(self.pid)
            if process is None:
                return False
            if process and self.process:
                return process == self.process
        return now - self.renewed < STALE_SECONDS


@contextlib.contextmanager
def in_use(uri: str, run_id: str, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Until the block ends, a run is marked as going on. Waits first for a collection that is going on.

    Args:
        uri: The store.
        run_id: The run.
        tell: Told that it waits.
    """
    store = Store(uri)
    with _marked(store, run_id):
        waits = False
        while names := [name for name in store.names("runs") if name.startswith(COLLECTOR)]:
            marks = [mark for name in names if (mark := _read(store, mark_path(name))) and mark.is_live(time.time())]
            if not marks:
                break
            if tell and not waits:
                tell(f"waits for `ladm gc` on {marks[0].host} (process {marks[0].pid}) to end")
            waits = True
            time.sleep(PAUSE_SECONDS)
        yield


@contextlib.contextmanager
def collecting(store: Store, name: str) -> Iterator[None]:
    """Until the block ends, a collection is marked as going on, and no run begins."""
    with _marked(store, f"{COLLECTOR}{name}"):
        yield


def live_marks(store: Store, files: Iterable[StoredFile], now: float) -> list[Mark]:
    """The marks, of a listing of the store, whose processes still run; of collections too.

    Args:
        store: The store.
        files: The listing.
        now: Seconds since 1970.
    """
    marks = (_read(store, file.path) for file in files if is_mark(file.path))
    return [mark for mark in marks if mark and mark.is_live(now)]


def mark_path(run_id: str) -> str:
    """Where the mark of a run lies."""
    return f"runs/{run_id}/in-use.json"


def is_mark(path: str) -> bool:
    """Whether a file of the store is a mark."""
    return path.startswith("runs/") and path.endswith("/in-use.json") and path.count("/") == 2


def _read(store: Store, path: str) -> Mark | None:
    """A mark; None if it was taken away, or is none."""
    try:
        return Mark.model_validate_json(store.read_bytes(path))
    except (FileNotFoundError, ValueError):
        return None


@contextlib.contextmanager
def _marked(store: Store, run_id: str) -> Iterator[None]:
    """Until the block ends, there is a mark, and a thread that renews it."""
    mark = Mark(
        run_id=run_id,
        host=platform.node(),
        machine=this_machine(),
        pid=os.getpid(),
        process=process_started(os.getpid()) or "",
        started=time.time(),
        renewed=time.time(),
    )
    over = threading.Event()

    def renew() -> None:
        # What cannot be written now, to a full disk or a server that is gone, is tried again. A run that can write no
        # mark for long cannot write shards either.
        with contextlib.suppress(*io_errors()):
            renewed = mark.model_copy(update={"renewed": time.time()})
            store.write_bytes(mark_path(run_id), renewed.model_dump_json(indent=2).encode())

    def keep() -> None:
        while not over.wait(RENEWED_SECONDS):
            renew()

    renew()
    thread = threading.Thread(target=keep, name=f"mark of {run_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()  # or its last renewal could come after the mark is taken away
        with contextlib.suppress(*io_errors()):
            store.remove(mark_path(run_id))
            store.remove_empty_folders(f"runs/{run_id}")


# -- processes and machines ------------------------------------------------------------------------------------


@cache
def this_machine() -> str:
    """What tells this machine, since it was started, and this container from every other."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))  # process numbers count within it
    return " ".join(parts)


def process_started(pid: int) -> str | None:
    """When a process of this machine was started; empty where that cannot be told, None if there is no such process."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:  # another user's
        pass
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    fields = status.rpartition(")")[2].split()  # the third field and those after it; the second may hold anything
    return None if fields[0] in ("Z", "X") else fields[19]


def _started_by_ps(pid: int) -> str:
    """The same where there is no /proc, as on macOS."""
    try:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join(done.stdout.split())
