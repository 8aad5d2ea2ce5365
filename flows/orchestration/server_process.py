"""The Prefect server of one run, or of `ladm serve`, as a process of its own: `python -m THIS_MODULE PORT`.

It listens on the loopback interface only, on the port given or, for 0, a free one; writes the port to standard output;
and ends as soon as its standard input does, which is when the process that started it is gone.

Servers of one cache come up one after the other: the first one makes the tables of the database that they share.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import threading
from pathlib import Path

from ladm.flows.imports import without_collection
from ladm.flows.orchestration.report_links import KEY_FILE, report_route
from ladm.tasks.printable import printable
from ladm.tasks.redact import one_line

LOCK = "LADM_SERVER_LOCK"
"""The environment variable that names the file which keeps servers of one cache apart while they come up."""


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def alone(path: str | None) -> contextlib.ExitStack:
    """A lock on a file, once no other process has it; closing it gives it up. No lock where there can be none."""
    held = contextlib.ExitStack()
    if path:
        with contextlib.suppress(OSError):  # a file system without locks
            file = held.enter_context(open(path, "ab"))  # noqa: PTH123, SIM115
            fcntl.flock(file, fcntl.LOCK_EX)
    return held


def last_words(log: Path) -> str:
    """What stands at the end of a log, to be put in brackets behind what it is a log of."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    wrong = [line for line in lines if "Error" in line] or lines
    return f" ({printable(one_line(wrong[-1]), 300)})" if wrong else ""


def serve(port: int) -> None:
    """Serve Prefect's API until standard input ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(128)
        print(listening.getsockname()[1], flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

        with without_collection():
            import uvicorn  # noqa: PLC0415  (the parent need not wait for it to know the port)
            from prefect.server.api.server import create_app  # noqa: PLC0415

            app = create_app()
            if key_file := os.environ.get(KEY_FILE):  # before the pages, which answer whatever is asked
                app.router.routes.insert(0, report_route(Path(key_file)))
        held = alone(os.environ.get(LOCK))

        class Server(uvicorn.Server):
            """Gives up the lock once the database is as this version wants it."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=sockets)
                held.close()

        with held:
            Server(uvicorn.Config(app, log_level="error", lifespan="on")).run(sockets=[listening])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
