"""The Prefect server of one run, as a process of its own: `python -m flows.prefect_server`.

It listens on the loopback interface only, on a free port that it writes to standard output, and it ends as soon as
its standard input does, which is when the process that started it is gone.
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def serve() -> None:
    """Serve Prefect's API until standard input ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        print(listening.getsockname()[1], flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

        import uvicorn  # noqa: PLC0415  (the parent need not wait for it to know the port)
        from prefect.server.api.server import create_app  # noqa: PLC0415

        config = uvicorn.Config(create_app(), log_level="error", lifespan="on")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    serve()
