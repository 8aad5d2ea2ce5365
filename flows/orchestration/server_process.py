"""The Prefect server of one run, or of `ladm serve`, as a process of its own: `python -m THIS_MODULE PORT`.

It listens on the loopback interface only, on the port given or, for 0, a free one; writes the port to standard output;
and ends as soon as its standard input does, which is when the process that started it is gone.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

from ladm.flows.imports import without_collection


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


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
        config = uvicorn.Config(app, log_level="error", lifespan="on")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
