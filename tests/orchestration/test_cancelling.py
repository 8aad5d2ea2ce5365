"""Runs that are stopped before their end: by a signal, on the user's own Prefect server, and by a served deployment."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL
from prefect.states import Cancelling
from test_processes import start, wait_for

from ladm.flows.orchestration.environment import prefect_server
from ladm.flows.runs.read import read_record, run_ids
from ladm.tasks.models.cache import cache_root
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
LONG = """
import pathlib, signal, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under `nohup`
from ladm.tasks.scorers import span_mass
quick = span_mass._blocks
def slow(cuts):
    pathlib.Path({begun!r}).touch()
    for block in quick(cuts):
        time.sleep(1)
        yield block
span_mass._blocks = slow
"""
"""Every window takes minutes in the model, as one of 128,000 tokens would."""
SETTINGS = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_DATABASE_CONNECTION_URL")


def long_scoring(tmp_path: Path) -> tuple[str, Path]:
    """What makes scoring take long, and the file that tells that it has begun."""
    begun = tmp_path / "begun"
    return LONG.format(begun=str(begun)), begun


def the_record(store: Path) -> dict[str, Any]:
    """The record of a store's one run."""
    (run_id,) = run_ids(Store(str(store)))
    return read_record(Store(str(store)), run_id)


def check_cancelled(record: dict[str, Any], store: Path) -> None:
    assert (record["status"], record["remedies"]) == ("cancelled", ["again"])
    assert record["stages"]["tokenize"]["kept"] == 7
    assert record["finished"] > record["started"]
    assert not list(store.rglob("*.tmp"))
    assert not list(store.glob("runs/*/in-use.json"))
    assert not (store / "latest").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_long_window(
    number: signal.Signals, tmp_path: Path, corpus: Corpus, ladm: Cli
) -> None:
    store = tmp_path / "a store"
    before, begun = long_scoring(tmp_path)
    arguments = run_arguments(corpus, store)
    process = start(arguments, before)
    wait_for(begun.exists)
    began = time.monotonic()
    os.kill(process.pid, number)
    _, log = process.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert process.returncode == 128 + number, log
    assert "Traceback" not in log
    record = the_record(store)
    check_cancelled(record, store)
    assert record["failures"][-1]["error"] == f"Stop: {number.name}"
    last = log.strip().splitlines()[-1]
    assert last.startswith("ladm: interrupted; what goes on where this one stopped: ladm run --store ")
    shown = ladm("sql", "select status from runs", "--store", store, "--format", "json")
    assert json.loads(shown.out) == [{"status": "cancelled"}]
    assert f"this is run {record['run_id']}, which was cancelled" in shown.err
    again = ladm(*arguments)
    assert again.code == 0
    assert again.record["stages"]["tokenize"]["cached"] == 2


NEVER = "import ladm.flows.runs.publish as p, time\np.publish = lambda record: time.sleep(600)\n"
"""Before a run: its record takes longer than anybody waits."""


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, corpus: Corpus) -> None:
    """Even where the record cannot be left."""
    before, begun = long_scoring(tmp_path)
    process = start(run_arguments(corpus, tmp_path / "store"), before + NEVER)
    wait_for(begun.exists)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(1)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert process.returncode == 130, log


@pytest.mark.slow
def test_a_record_that_takes_too_long_is_not_waited_for(tmp_path: Path, corpus: Corpus) -> None:
    before, begun = long_scoring(tmp_path)
    process = start(run_arguments(corpus, tmp_path / "store"), before + NEVER)
    wait_for(begun.exists)
    os.kill(process.pid, signal.SIGTERM)
    _, log = process.communicate(timeout=25)
    assert process.returncode == 143, log


@pytest.fixture
def users_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """A client of a server that stands for the user's own; processes that are started here use it."""
    with prefect_server(cache_root()):
        monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value() or "")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", PREFECT_API_AUTH_STRING.value() or "")
        with get_client(sync_client=True) as client:
            yield client


def flow_run_of(client: SyncPrefectClient, store: Path) -> Any:
    """The run on a store; tests beside this one have runs on the same server."""
    from prefect.client.schemas.sorting import FlowRunSort

    (folder,) = (store / "runs").iterdir()
    runs = client.read_flow_runs(limit=100, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    (run,) = [run for run in runs if run.name.startswith(folder.name)]
    return run


def test_cancelled_on_the_users_own_server(tmp_path: Path, corpus: Corpus, users_client: SyncPrefectClient) -> None:
    store = tmp_path / "store"
    before, begun = long_scoring(tmp_path)
    process = start(run_arguments(corpus, store), before)
    wait_for(begun.exists)
    run = flow_run_of(users_client, store)
    assert run.state.is_running()
    began = time.monotonic()
    users_client.set_flow_run_state(run.id, Cancelling())
    _, log = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 143, log
    check_cancelled(the_record(store), store)
    assert users_client.read_flow_run(run.id).state.is_cancelled()


def test_ctrl_c_is_told_to_the_users_own_server(
    tmp_path: Path, corpus: Corpus, users_client: SyncPrefectClient
) -> None:
    before, begun = long_scoring(tmp_path)
    process = start(run_arguments(corpus, tmp_path / "store"), before)
    wait_for(begun.exists)
    run = flow_run_of(users_client, tmp_path / "store")
    os.kill(process.pid, signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 130, log
    state = users_client.read_flow_run(run.id).state
    assert state.is_cancelled()
    assert "stopped by SIGINT" in state.message


@pytest.mark.slow
def test_cancelled_while_served(tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the API, as the button on Prefect's page does it; the run is in the middle of a long window."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before, begun = long_scoring(tmp_path)
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name != 'ladm.tasks.scorers.attention': return None\n"
        "        sys.meta_path.remove(self)\n"
        + "".join(f"        {line}\n" for line in before.strip().splitlines())
        + "sys.meta_path.insert(0, Finder())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment |= {"LADM_CACHE": str(tmp_path / "cache"), "PREFECT_SERVER_API_AUTH_STRING": "me:secret"}
    environment["PYTHONPATH"] = f"{tmp_path / 'patch'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    settings = [argument for setting in corpus.settings for argument in ("--set", setting)]
    store = tmp_path / "store"
    command = ["serve", *settings, "--store", str(store), "--cron", "0 2 1 1 *", "--port", str(port)]
    program = "import sys; from ladm.flows.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "log").open("wb"),
    ) as serving:
        try:
            assert serving.stdout is not None
            assert serving.stdout.readline().startswith(b"serving curate/nightly"), (tmp_path / "log").read_text()
            monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
            from prefect.settings import temporary_settings

            updates = {PREFECT_API_URL: f"http://127.0.0.1:{port}/api", PREFECT_API_AUTH_STRING: "me:secret"}
            with temporary_settings(updates=updates), get_client(sync_client=True) as client:
                wait_for(client.read_deployments)
                run = client.create_flow_run_from_deployment(client.read_deployments()[0].id)
                wait_for(begun.exists, 240)
                began = time.monotonic()
                client.set_flow_run_state(run.id, Cancelling())
                wait_for(lambda: client.read_flow_run(run.id).state.type.value == "CANCELLED", 60)
                wait_for(lambda: not list(store.glob("runs/*/in-use.json")), 60)
                assert time.monotonic() - began < 45
                named = client.read_flow_run(run.id).name
            record = the_record(store)
            check_cancelled(record, store)
            assert named.startswith(f"{record['run_id']} ")
        finally:
            serving.terminate()
            serving.wait(30)
