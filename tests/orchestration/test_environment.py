"""The server that a run starts for itself: begun early, one of it, and none where the user has one."""

from __future__ import annotations

import base64
import functools
import http.server
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ladm.flows.orchestration import environment, secret
from ladm.tasks.errors import UserError

REAL_POPEN = subprocess.Popen
HEALTHY = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if "csrf" in self.path:
            self.send_error(422, "CSRF protection is disabled")
        else:
            self.answer(b'"3.8.0"' if self.path.endswith("version") else b"true")
    def do_POST(self):
        self.answer(b"[]")
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""Stands for Prefect's server: says its port and answers every request."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The servers that were started; what this process had started before is put aside."""
    servers: list[subprocess.Popen[bytes]] = []

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        assert command[-2:] == ["ladm.flows.orchestration.server_process", "0"]
        servers.append(REAL_POPEN([sys.executable, "-c", HEALTHY], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return servers[-1]

    monkeypatch.setattr(environment.subprocess, "Popen", popen)
    for name in ("_launched", "_own_server"):
        monkeypatch.setattr(environment, name, functools.cache(getattr(environment, name).__wrapped__))
    yield servers
    for server in servers:
        server.kill()
        server.wait()


def test_the_server_that_was_begun_is_the_one_that_is_used(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    environment.begin_server(tmp_path)
    environment.begin_server(tmp_path)
    for _ in range(2):
        with environment.prefect_server(tmp_path):
            address = PREFECT_API_URL.value()
            assert address is not None
            assert address.startswith("http://127.0.0.1:")
            with environment.prefect_server(tmp_path):  # a run within a run
                assert PREFECT_API_URL.value() == address
    assert [server.poll() for server in started] == [None]


def test_none_is_begun_where_the_environment_names_one(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    environment.begin_server(tmp_path)
    assert not started


def test_one_that_was_begun_in_vain_is_stopped(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with REAL_POPEN([sys.executable, "-c", HEALTHY], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            address = f"http://127.0.0.1:{int(server.stdout.readline())}/api"
            monkeypatch.delenv("PREFECT_API_URL", raising=False)
            environment.begin_server(tmp_path)
            # As a profile would: not in the environment.
            with temporary_settings({PREFECT_API_URL: address}), environment.prefect_server(tmp_path):
                assert PREFECT_API_URL.value() == address
            assert len(started) == 1
            assert started[0].poll() is not None
        finally:
            server.kill()


OTHERS = {
    "PREFECT_SERVER_API_AUTH_STRING": "admin:pw",
    "PREFECT_API_KEY": "of-another",
    "PREFECT_SERVER_API_BASE_PATH": "/prefix",
    "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_UI_SERVE_BASE": "/prefix",
    "PREFECT_API_SSL_CERT_FILE": "/nowhere.pem",
    "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": "s3-bucket/nowhere",
    "PREFECT_PROFILE": "nobody",
    "PREFECT_CLIENT_CUSTOM_HEADERS": '{"Authorization": "Bearer of-another"}',
    "PREFECT_API_REQUEST_TIMEOUT": "0.0001",
    "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://nobody:pw@127.0.0.1:9/none",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://nobody:pw@127.0.0.1:9/none",
    "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
    "prefect_server_docket_url": "redis://127.0.0.1:9/0",
    "PREFECT_MESSAGING_BROKER": "no_such_package.messaging",
    "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "no_such_package.messaging",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "no_such_package.leases",
    "PREFECT_LOGGING_SETTINGS_PATH": "/nowhere.yml",
}
"""Settings for a Prefect of the user's own."""


def asked(address: str, path: str, sign_in: str | None = None) -> int:
    """The status that a server answers with."""
    request = urllib.request.Request(f"{address}{path}", data=b"{}", headers={"content-type": "application/json"})
    if sign_in is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(sign_in.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def of_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Servers are started anew, and stopped after the test."""
    caches = {name: functools.cache(getattr(environment, name).__wrapped__) for name in ("_launched", "_own_server")}
    stops: list[tuple[Any, Any]] = []
    monkeypatch.setattr(environment.atexit, "register", lambda stop, server: stops.append((stop, server)))
    for name, cached in caches.items():
        monkeypatch.setattr(environment, name, cached)
    yield
    for stop, server in stops:
        stop(server)


@pytest.mark.usefixtures("of_this_test")
def test_our_server_has_a_secret_of_its_own_whatever_the_user_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / ".env").write_text("PREFECT_SERVER_API_BASE_PATH=/other\n")
    monkeypatch.chdir(tmp_path / "here")
    with environment.prefect_server(tmp_path):
        address, sign_in = PREFECT_API_URL.value(), PREFECT_API_AUTH_STRING.value()
        assert address is not None
        assert sign_in is not None
        with get_client(sync_client=True) as client:
            client.read_flows()  # raises where it is not let in
    for path in ("/flows/filter", "/deployments/filter", "/flow_runs/filter", "/block_documents/filter"):
        assert asked(address, path) == 401
        assert asked(address, path, "admin:pw") == 401
        assert asked(address, path, "ladm:") == 401
    assert asked(address, "/flows/filter", sign_in) == 200


@pytest.mark.usefixtures("of_this_test")
def test_a_lasting_server_has_a_secret_that_its_user_alone_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        monkeypatch.setenv(name, "")  # to be set back after the test
        monkeypatch.delenv(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with environment.lasting_server(tmp_path, port) as shown:
        path = tmp_path / "prefect-serve.secret"
        sign_in = path.read_text().strip()
        assert str(path) in shown
        assert sign_in not in shown
        assert path.stat().st_mode & 0o777 == 0o600
        api = f"http://127.0.0.1:{port}/api"
        assert (os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"]) == (api, sign_in)
        assert asked(api, "/deployments/filter") == 401
        assert asked(api, "/deployments/filter", sign_in) == 200


def test_the_secret_of_a_lasting_server_may_be_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(secret.USERS_OWN, "admin:pw")
    assert secret.secret_to_sign_in() == "admin:pw"
    assert secret.secret() != "admin:pw"
    assert len(secret.secret()) > 30


def answering(status: int, body: bytes, kind: str) -> type[http.server.BaseHTTPRequestHandler]:
    """A web server that answers everything in one way."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


@pytest.mark.parametrize(
    ("status", "body", "kind", "line"),
    [
        (404, b"no", "text/html", "is not a Prefect server that this Prefect can use (HTTP 404 for /api/"),
        (200, b"<html>", "text/html", "is not a Prefect server that this Prefect can use ("),
        (200, b"", "text/plain", "is not a Prefect server that this Prefect can use ("),
        (200, b'{"status": "ok"}', "application/json", "is not a Prefect server that this Prefect can use ("),
        (200, b"true", "application/json", "is not a Prefect server that this Prefect can use ("),
        (200, b'"2.0.1"', "application/json", "is not a Prefect server that this Prefect can use ("),
        (503, b"later", "text/plain", "is not a Prefect server that this Prefect can use (HTTP 503 for"),
        (401, b"{}", "application/json", "does not let us in (HTTP 401); set PREFECT_API_AUTH_STRING"),
    ],
)
def test_what_is_no_prefect_server_is_refused_in_one_line(
    status: int, body: bytes, kind: str, line: str, tmp_path: Path
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with http.server.HTTPServer(("127.0.0.1", 0), answering(status, body, kind)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/api"
        try:
            with (
                temporary_settings({PREFECT_API_URL: address}),
                pytest.raises(UserError, match=r"^PREFECT_API_URL: ") as refused,
                environment.prefect_server(tmp_path),
            ):
                pass
        finally:
            server.shutdown()
    assert line in str(refused.value)
    assert f"127.0.0.1:{server.server_port}" in str(refused.value)
    assert "\n" not in str(refused.value)
