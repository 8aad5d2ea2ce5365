"""The Prefect server that the user has set: whether one is there, and takes what we will ask of it."""

from __future__ import annotations

import socket
import urllib.parse

from ladm.tasks.errors import UserError
from ladm.tasks.redact import one_line

PATIENCE_SECONDS = 10.0


def check_reachable(address: str) -> None:
    """Refuse an address at which no Prefect server answers, or one that does not know us.

    Args:
        address: What PREFECT_API_URL says; a client made here uses it.

    Raises:
        UserError: One line that names the setting and the fix.
    """
    parts = urllib.parse.urlsplit(address)
    shown = one_line(address)
    try:
        if parts.hostname:
            shown = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=PATIENCE_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"PREFECT_API_URL: no Prefect server answers at {shown} ({error}); "
            "start it, or unset PREFECT_API_URL and ladm starts one for the run"
        ) from None
    if problem := _problem():
        raise UserError(problem.format(shown=shown))


def _problem() -> str | None:
    """What is wrong with the server that Prefect's client finds; `{shown}` stands for its address."""
    import httpx  # noqa: PLC0415
    from prefect.client.base import ServerType  # noqa: PLC0415
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.exceptions import PrefectException  # noqa: PLC0415
    from prefect.settings import (  # noqa: PLC0415
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    impatient = {PREFECT_API_REQUEST_TIMEOUT: PATIENCE_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}
    try:
        with temporary_settings(updates=impatient), get_client(sync_client=True) as client:
            if problem := client.api_healthcheck():
                raise problem
            if client.server_type != ServerType.CLOUD and not client.api_version()[:1].isdigit():
                raise ValueError("it tells no version")
            client.read_flows(limit=1)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"PREFECT_API_URL: the server at {{shown}} does not let us in (HTTP {status}); set "
                "PREFECT_API_AUTH_STRING (or PREFECT_API_KEY) to what it asks for"
            )
        reason = f"HTTP {status} for {error.request.url.path}"
    except (httpx.HTTPError, httpx.InvalidURL, PrefectException, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = one_line(str(error).split(" [type=")[0])[:200] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            return "PREFECT_API_SSL_CERT_FILE: there is no such file; correct or unset it"
    else:
        return None
    reason = reason.replace("{", "{{").replace("}", "}}")
    return (
        f"PREFECT_API_URL: what answers at {{shown}} is not a Prefect server that this Prefect can use ({reason}); set "
        "the address of one, which ends in /api, or unset PREFECT_API_URL and ladm starts one for the run"
    )
