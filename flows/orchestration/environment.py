"""Prefect as a guest that keeps quiet: no log noise, no analytics, no calls to the network, its own server.

A run uses the Prefect server that the user has set (PREFECT_API_URL or a profile). Where there is none it starts one
for itself, on the loopback interface and a port that the system picks. Prefect can do that too, but its server
inherits our output streams and outlives a process that was killed; ours watches a pipe and ends with its parent,
however that ended.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from ladm.flows.orchestration.network import settle_network
from ladm.flows.orchestration.prefect_settings import check_prefect_settings
from ladm.flows.orchestration.private_folder import give_prefect_a_home, private_file, private_folder
from ladm.flows.orchestration.report_links import serve_reports
from ladm.flows.orchestration.secret import (
    pass_on,
    secret,
    secret_to_sign_in,
    servers_environment,
    using,
    write_sign_in,
)
from ladm.flows.orchestration.server_process import LOCK, last_words
from ladm.flows.orchestration.users_server import check_reachable
from ladm.tasks.errors import UserError

RECORDER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
"""Settings of a Prefect server that write down task runs by the hundred.

By itself it writes them one by one, 80 a second; what waits beyond 10,000 changes of state it drops, and thousands of
small shards that are done or found within a minute would be missing in its UI.
"""
NO_AUTOMATIONS = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
}
"""Settings of a server that nobody looks at: no automation waits for its events, and no page shows them."""
DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"
OUR_DATABASE = "LADM_PREFECT_DATABASE"
"""Says what we set `DATABASE` to. What the user set it to is the database of another server, of another version maybe,
and is never given to ours."""
STARTUP_SECONDS = 300  # a machine that is busy takes minutes; a server that died is noticed at once


def quiet_prefect(cache: Path, tell: Callable[[str], None] | None = None) -> None:
    """Set Prefect's defaults for a run started by hand; must come before `prefect` is imported.

    What the user has set in the environment stays as it is.

    Args:
        cache: A folder for the database of the server that a run starts for itself.
        tell: Gets a line for each proxy that cannot be used.

    Raises:
        UserError: The user's certificates cannot be read.
    """
    _settle(
        tell,
        {
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            **_discreet(cache, "prefect.db"),
        },
    )


def lasting_prefect(cache: Path, tell: Callable[[str], None] | None = None) -> None:
    """The same for what is served or deployed: just as discreet, but its logs go to the server, for the UI.

    Imports Prefect.

    Raises:
        UserError: The user's certificates, or settings of Prefect, cannot be read.
    """
    _settle(tell, {"PREFECT_SERVER_LOGGING_LEVEL": "ERROR", **_discreet(cache, "prefect-serve.db")})
    check_prefect_settings()


def _discreet(cache: Path, database: str) -> dict[str, str]:
    """Nothing told to anybody, and a database of our own."""
    cache.mkdir(parents=True, exist_ok=True)
    try:
        Path.home()
    except RuntimeError:  # a user without one, as in a container: Prefect and others want to know it
        os.environ["HOME"] = str(cache)
    give_prefect_a_home(cache)
    if DATABASE not in os.environ:
        os.environ[DATABASE] = os.environ[OUR_DATABASE] = f"sqlite+aiosqlite:///{private_folder(cache) / database}"
    return {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_COLORS": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }


def _settle(tell: Callable[[str], None] | None, values: dict[str, str]) -> None:
    """Set what the user has not set in the environment, and leave out of it what Prefect's client would stumble at."""
    for name, value in values.items():
        os.environ.setdefault(name, value)
    for line in settle_network():
        if tell:
            tell(line)


def users_server_is_set() -> bool:
    """Whether the user has set a Prefect server, as far as can be told without Prefect; true where it is not sure."""
    if os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILES_PATH"):
        return True
    try:
        home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    except RuntimeError:  # a user without a home
        home = Path()
    files = (home / "profiles.toml", *map(Path, ("prefect.toml", ".env", "pyproject.toml")))
    for file in files:
        with contextlib.suppress(OSError):
            content = file.read_text(encoding="utf-8", errors="replace").lower()
            if "prefect_api_url" in content or "tool.prefect" in content or file.name == "prefect.toml":
                return True
    return False


def begin_server(cache: Path) -> None:
    """Start the server that a run will ask `prefect_server` for, and do not wait for it.

    It takes some seconds to come up, in which another core can import Prefect and look for the model. With
    PREFECT_API_URL set, nothing is started.
    """
    if not os.environ.get("PREFECT_API_URL"):
        _launched(cache, 0)


@contextlib.contextmanager
def prefect_server(cache: Path) -> Iterator[None]:
    """While open, Prefect has a server: the user's own, or one of this process (started once, stopped at its end)."""
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415

    if address := PREFECT_API_URL.value():
        if _launched.cache_info().currsize and not _own_server.cache_info().currsize:
            # The address stands in a profile, which `begin_server` did not read.
            _stop(_launched(cache, 0)[0])
            _launched.cache_clear()
        if not (_own_server.cache_info().currsize and address == f"{_own_server(cache)}/api"):  # a run within a run
            check_reachable(address)
        yield
        return
    with using(_own_server(cache), secret()):
        yield


def serves_itself() -> bool:
    """Whether the Prefect server in use is one that this process started."""
    return _own_server.cache_info().currsize > 0


def users_server() -> str:
    """The address of the user's own Prefect server, without credentials, to be shown.

    Raises:
        UserError: None is set, or it does not answer.
    """
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415

    address: str | None = PREFECT_API_URL.value()
    if not address:
        raise UserError(
            "PREFECT_API_URL: no Prefect server is set; start one (`prefect server start`) and set its address, "
            "e.g. http://127.0.0.1:4200/api"
        )
    check_reachable(address)
    parts = urllib.parse.urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@contextlib.contextmanager
def lasting_server(cache: Path, port: int) -> Iterator[str]:
    """While open, Prefect has a server that keeps schedules: the user's own, or one of this process, with its UI.

    Args:
        cache: A folder for the database of a server of our own.
        port: Where that server listens on the loopback interface.

    Yields:
        Its address, and how to sign in there.

    Raises:
        UserError: The user's server does not answer, or the port is taken.
    """
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415

    if PREFECT_API_URL.value():
        yield users_server()
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"--port: {port} cannot be listened on ({error}); give another, or if a Prefect server listens "
                f"there, set PREFECT_API_URL=http://127.0.0.1:{port}/api"
            ) from None
    ours = private_folder(cache)
    reports = serve_reports(ours, f"http://127.0.0.1:{port}")
    os.environ |= reports
    try:
        address = _own_server(cache, port)
        pass_on(address, secret_to_sign_in())  # to the processes that runs are done in
        with using(address, secret_to_sign_in()):
            yield f"{address} (sign in with what {write_sign_in(ours, secret_to_sign_in())} holds)"
    finally:
        for name in reports:
            os.environ.pop(name, None)


@functools.cache
def _own_server(cache: Path, port: int = 0) -> str:
    """The address of our own server, once it answers; with a port, one with schedules and UI."""
    server, log = _launched(cache, port)
    assert server.stdout is not None
    address = f"http://127.0.0.1:{server.stdout.readline().decode().strip()}"
    deadline = time.monotonic() + STARTUP_SECONDS
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with direct.open(f"{address}/api/health", timeout=5) as answer:
                if answer.status == 200:
                    return address
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    _stop(server)
    _launched.cache_clear()
    raise UserError(
        f"Prefect's server did not start{last_words(log)}; see {log}, or set PREFECT_API_URL to a server of your own"
    )


@functools.cache
def _launched(cache: Path, port: int) -> tuple[subprocess.Popen[bytes], Path]:
    """Our own server as a process that is coming up, and its log."""
    cache = private_folder(cache)
    log = private_file(cache / ("prefect-serve.log" if port else "prefect-server.log"))
    short_lived = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1", **NO_AUTOMATIONS}
    lasting = {"PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT__SERVER_FINAL": "1"}
    database = os.environ.get(OUR_DATABASE)
    if database is None or database != os.environ.get(DATABASE):
        database = f"sqlite+aiosqlite:///{cache / ('prefect-serve.db' if port else 'prefect.db')}"
    private_file(Path(database.removeprefix("sqlite+aiosqlite:///")))
    with log.open("wb") as errors:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "ladm.flows.orchestration.server_process", str(port)],
            stdin=subprocess.PIPE,  # held open as long as this process lives: its end is the sign to stop
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env={
                **servers_environment({**RECORDER, **os.environ}, cache, secret_to_sign_in() if port else secret()),
                **(lasting if port else short_lived),
                DATABASE: database,
                LOCK: str(private_file(cache / "prefect-server.lock")),
            },
            cwd=cache,  # not where the user's .env, prefect.toml or pyproject.toml may lie
        )
    atexit.register(_stop, server)
    return server, log


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.kill()  # nothing in its database is needed: the store's records are the truth
    server.wait()
