"""The secret of the Prefect server that this process starts, and what of the user's own settings that server ignores.

Whoever may start a flow run may have any file read that its owner can read. So other users of the machine, who reach
the loopback interface too, are kept out: every request needs a secret, which is made anew with each process and is
passed on in the environment of its own processes alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

USERS_OWN = "PREFECT_SERVER_API_AUTH_STRING"
NOT_FOR_OURS = ("PREFECT_SERVER_", "PREFECT_UI_", "PREFECT_API_", "PREFECT_MESSAGING_", "PREFECT_LOGGING_SETTINGS_")
"""Settings of servers and clients of the user's own; they would move ours, lock it, send it elsewhere, have it write
into the database of another, or ask a broker of messages that is another's."""
ALSO_NOT = ("PREFECT_PROFILE", "PREFECT_TEST_MODE", "PREFECT_UNIT_TEST_MODE")
RESULTS = "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK"
KEPT = (
    *("PREFECT_SERVER_API_KEEPALIVE", "PREFECT_SERVER_API_DEFAULT_LIMIT", "PREFECT_SERVER_LOGGING_LEVEL"),
    *("PREFECT_SERVER_ANALYTICS_", "PREFECT_SERVER_SERVICES_"),
)


@functools.cache
def secret() -> str:
    """The secret of this process's server, of the form `user:password`."""
    return f"ladm:{secrets.token_urlsafe(24)}"


def secret_to_sign_in() -> str:
    """The secret of a server whose pages people open: the one that they set, or else one of our own."""
    return os.environ.get(USERS_OWN) or secret()


def servers_environment(given: Mapping[str, str], cache: Path, lock: str) -> dict[str, str]:
    """The environment of a server of our own: the given one, less what is meant for another Prefect.

    Args:
        given: The environment of this process.
        cache: Where no profiles lie.
        lock: The server's secret.
    """
    ours = {
        name: value
        for name, value in given.items()
        if name.upper().startswith(KEPT) or not name.upper().startswith((*NOT_FOR_OURS, *ALSO_NOT))
    }
    return {**ours, "PREFECT_PROFILES_PATH": str(cache / "no-profiles.toml"), USERS_OWN: lock}


@contextlib.contextmanager
def using(address: str, lock: str) -> Iterator[None]:
    """While open, Prefect here uses the server of our own at an address, and nothing that is for another one."""
    from prefect.settings import (  # noqa: PLC0415
        PREFECT_API_AUTH_STRING,
        PREFECT_API_KEY,
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_API_SSL_CERT_FILE,
        PREFECT_API_URL,
        PREFECT_CLIENT_CUSTOM_HEADERS,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_DEFAULT_RESULT_STORAGE_BLOCK,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    updates: dict[Any, Any] = {PREFECT_API_URL: f"{address}/api", PREFECT_API_AUTH_STRING: lock}
    # Of a flow in this process: the server ends with it, and Prefect waits up to a second for a heartbeat to end.
    updates[PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
    others: set[Any] = {PREFECT_API_KEY, PREFECT_API_SSL_CERT_FILE, PREFECT_DEFAULT_RESULT_STORAGE_BLOCK}
    others |= {PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_CUSTOM_HEADERS, PREFECT_CLIENT_MAX_RETRIES}
    with temporary_settings(updates=updates, restore_defaults=others):
        yield


def pass_on(address: str, lock: str) -> None:
    """Have the processes of this one use the server of our own at an address."""
    for name in ("PREFECT_API_KEY", "PREFECT_API_SSL_CERT_FILE", "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK", RESULTS):
        os.environ.pop(name, None)
    os.environ |= {"PREFECT_API_URL": f"{address}/api", "PREFECT_API_AUTH_STRING": lock}
    os.environ |= {"PREFECT_CLIENT_CUSTOM_HEADERS": "{}", "PREFECT_API_REQUEST_TIMEOUT": "60"}


def write_sign_in(cache: Path, lock: str) -> Path:
    """Write down what Prefect's pages ask for, where the user alone can read it."""
    path = cache / "prefect-serve.secret"
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(f"{lock}\n")
    return path
