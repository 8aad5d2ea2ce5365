"""The server that a run starts for itself: begun early, one of it, and none where the user has one."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ladm.flows.orchestration import environment

REAL_POPEN = subprocess.Popen
HEALTHY = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
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
