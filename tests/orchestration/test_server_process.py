"""Servers that come up at once in one cache, which the first one has to make its database in."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from ladm.flows.orchestration.secret import servers_environment
from ladm.flows.orchestration.server_process import LOCK, alone


def test_several_first_servers_at_once_in_an_empty_cache(tmp_path: Path) -> None:
    environment = servers_environment(os.environ, tmp_path, "a:b") | {
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}",
        "PREFECT__SERVER_EPHEMERAL": "1",
        LOCK: str(tmp_path / "lock"),
    }
    command = [sys.executable, "-P", "-m", "ladm.flows.orchestration.server_process", "0"]
    logs = [(tmp_path / f"{number}.log").open("wb") for number in range(3)]
    servers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment)
        for log in logs
    ]
    try:
        for number, server in enumerate(servers):
            assert server.stdout is not None
            port = int(server.stdout.readline())
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=120) as answer:
                assert answer.status == 200, (tmp_path / f"{number}.log").read_text()
    finally:
        for server, log in zip(servers, logs, strict=True):
            server.kill()
            server.communicate()
            log.close()


def test_a_lock_that_cannot_be_had_keeps_nobody_out(tmp_path: Path) -> None:
    alone(None).close()
    alone(str(tmp_path / "nowhere" / "lock")).close()
    with alone(str(tmp_path / "lock")):
        pass
