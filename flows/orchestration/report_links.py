"""Links to reports that a browser can open from Prefect's page.

A browser follows no `file://` and no `s3://` from a page. So the server that `ladm serve` starts gives out reports
itself, on the loopback interface: each by an address of its own that nobody can guess, since it is signed with a key
that the server's user alone can read. Where Prefect's server is another, `LADM_REPORTS_URL` may say at which address
somebody serves the store's files.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

BASE = "LADM_REPORTS_URL"
"""The environment variable with the address below which the store's files are served, e.g. https://files/ladm-store."""
SERVED = "LADM_REPORTS_SERVED"
"""The environment variable, of our own processes, with the address at which our server gives out reports."""
KEY_FILE = "LADM_REPORTS_KEY_FILE"
"""The environment variable, of our own processes, with the file that holds the key."""
PATH = "/ladm/reports"
HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts",  # a page of its own origin, apart from Prefect's and its secret
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def serve_reports(cache: Path, address: str) -> dict[str, str]:
    """What the environment of our server, and of the runs that it starts, has to hold for reports to be given out.

    Args:
        cache: Where the key is kept, so that links outlive the server.
        address: The server's.
    """
    path = cache / "report-links.key"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(secrets.token_hex(32))
    except FileExistsError:
        path.chmod(0o600)
    return {KEY_FILE: str(path), SERVED: f"{address}{PATH}"}


def report_link(store: str, run_id: str) -> str | None:
    """The address by which a browser opens a run's report; None where there is none.

    Args:
        store: The store, as the run's configuration names it.
        run_id: The run.
    """
    if base := os.environ.get(BASE):
        return f"{base.rstrip('/')}/runs/{urllib.parse.quote(run_id)}/report.html"
    served, key_file = os.environ.get(SERVED), os.environ.get(KEY_FILE)
    if not served or not key_file:
        return None
    asked = urllib.parse.urlencode({"store": store, "signature": _signature(Path(key_file), store, run_id)})
    return f"{served}/{urllib.parse.quote(run_id)}?{asked}"


def report_route(key_file: Path) -> Route:
    """What our server answers such links with."""
    from starlette.responses import HTMLResponse, PlainTextResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    from ladm.tasks.storage.file_systems import io_errors  # noqa: PLC0415
    from ladm.tasks.storage.store import Store  # noqa: PLC0415

    def give(request: Request) -> Response:
        run_id, store = request.path_params["run_id"], request.query_params.get("store", "")
        given = request.query_params.get("signature", "")
        if not hmac.compare_digest(given.encode(), _signature(key_file, store, run_id).encode()):
            return PlainTextResponse("this address was not made here", 403, HEADERS)
        try:
            page = Store(store).read_bytes(f"runs/{run_id}/report.html")
        except io_errors(ValueError):
            return PlainTextResponse("the report is not in the store any more; `ladm report` makes it", 404, HEADERS)
        return HTMLResponse(page, 200, HEADERS)

    return Route(f"{PATH}/{{run_id}}", give)


def _signature(key_file: Path, store: str, run_id: str) -> str:
    key = key_file.read_text(encoding="ascii").strip()
    return hmac.new(key.encode(), f"{run_id}\n{store}".encode(), hashlib.sha256).hexdigest()
