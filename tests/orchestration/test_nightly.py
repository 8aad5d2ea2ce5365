"""The nightly refresh as it is operated: PostgreSQL, a Prefect server, a worker and S3, each a process of its own.

What `infra/compose.yaml` puts in containers runs here on the loopback interface. The schedule starts every run; what
is tested is what an operator finds afterwards on S3 and in Prefect. Slow: the schedule's minutes have to pass. And
`ladm serve`, which is all of it in one process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Corpus, write_jsonl
from test_s3 import SECRET, Place, free_ports, place, server

from ladm.flows.orchestration.environment import RECORDER
from ladm.flows.runs.read import read_record, run_ids
from ladm.tasks.storage.store import Store

__all__ = ["place", "server"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
POOL = "nights"
HEARTBEAT_SECONDS = 30
INFRA = Path(__file__).parents[2] / "infra"

FAULT = """
import os, time
from pathlib import Path
if Path(os.environ["LADM_TEST_FAULT"]).exists():
    from ladm.tasks.stages import length
    compute = length.STAGE.compute
    def faulty(job, store, key):
        how, label = Path(os.environ["LADM_TEST_FAULT"]).read_text().split()
        if job.label.startswith(label):
            if how == "hangs":
                time.sleep(600)
            raise PermissionError("a disk that is not there")
        return compute(job, store, key)
    object.__setattr__(length.STAGE, "compute", faulty)
"""
"""A sitecustomize.py: while the file that LADM_TEST_FAULT names exists, one shard's length filter fails or hangs."""


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(1)
    return pytest.fail(f"{what}: not within {seconds:.0f} s")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server of its own; it refuses to run as root, so Debian's user for it does."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="ladm-postgres-"))
    if user:
        shutil.chown(folder, "postgres", "postgres")
    (port,) = free_ports(1)
    data = folder / "data"
    initdb = [*user, str(found[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", "prefect", "-E", "UTF8"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder)
    command = [*user, str(found[-1] / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""]
    with process(command, dict(os.environ), Path(tempfile.mkstemp()[1])):
        until(lambda: listens(port), 60, "PostgreSQL")
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def prefect_on(postgres: str, folder: Path) -> Iterator[dict[str, str]]:
    """Prefect's server on PostgreSQL; gives the environment of what is to use it."""
    (port,) = free_ports(1)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": postgres,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **RECORDER,
        "DO_NOT_TRACK": "1",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }
    serving = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with process(serving, environment, folder / "server.log"):
        until(lambda: listens(port), 180, "Prefect's server")
        yield environment


BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
told = {"subject": "{{subject}}", "body": "{{body}}"}
print(CustomWebhookNotificationBlock(name="alerts", url=sys.argv[1], json_data=told).save("alerts"))
"""
"""What an operator makes in Prefect's UI: where alerts go."""


@contextmanager
def alerts_by(environment: dict[str, str], folder: Path) -> Iterator[list[dict[str, str]]]:
    """`infra/automations.yaml` on Prefect's server, as its comments say; what it sends arrives in the list."""
    received: list[dict[str, str]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        make_block = [sys.executable, "-c", BLOCK, f"http://127.0.0.1:{receiver.server_port}/"]
        made = subprocess.run(make_block, env=environment, capture_output=True, text=True, check=True)
        text = (INFRA / "automations.yaml").read_text()
        assert "00000000-0000-0000-0000-000000000000" in text
        filled = folder / "automations.yaml"
        filled.write_text(text.replace("00000000-0000-0000-0000-000000000000", made.stdout.strip()))
        create = [sys.executable, "-m", "prefect", "--no-prompt", "automation", "create", "--from-file", str(filled)]
        done = subprocess.run(create, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "Created 2 automation(s)" in done.stdout) == (0, True), done.stdout + done.stderr
        yield received
        receiver.shutdown()


class Nights:
    """The running topology."""

    def __init__(
        self,
        environment: dict[str, str],
        place: Place,
        folder: Path,
        alerts: list[dict[str, str]],
        worker: subprocess.Popen[bytes],
    ) -> None:
        self.address = environment["PREFECT_API_URL"]
        self.environment, self.place, self.folder = environment, place, folder
        self.alerts, self.worker = alerts, worker
        self.fault = folder / "fault"

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Prefect's API."""
        request = urllib.request.Request(
            f"{self.address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def records(self) -> list[dict[str, Any]]:
        """Every run record on S3, in the order of the runs."""
        store = Store(self.place.store)
        return [read_record(store, run_id) for run_id in run_ids(store)]

    def next_record(self, after: datetime) -> dict[str, Any]:
        """The record of the first run that began after a moment."""

        def found() -> dict[str, Any] | None:
            return next((one for one in self.records() if datetime.fromisoformat(one["started"]) > after), None)

        return until(found, 600, "the next scheduled run")

    def flow_runs(self) -> list[dict[str, Any]]:
        """Flow runs that have ended, the newest first."""
        ended = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}}
        return self.ask("flow_runs/filter", {**ended, "sort": "START_TIME_DESC"})


@pytest.fixture
def nights(postgres: str, place: Place, tmp_path: Path, corpus: Corpus) -> Iterator[Nights]:
    """The topology, with the refresh deployed to run every minute."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(FAULT)
    python = [sys.executable, "-m"]
    with ExitStack() as stack:
        environment = stack.enter_context(prefect_on(postgres, tmp_path))
        environment |= {"PREFECT_WORKER_QUERY_SECONDS": "2", "LADM_TEST_FAULT": str(tmp_path / "fault")}
        environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = str(HEARTBEAT_SECONDS)
        alerts = stack.enter_context(alerts_by(environment, tmp_path))
        for name in ("letters", "poems"):
            place.upload(corpus.folder / f"{name}.jsonl")
        settings = [*corpus.settings, f"sources=s3://{place.prefix}/raw/*.jsonl"]
        deploy = [*python, "ladm.flows.cli", "deploy", "--store", place.store, "--cron", "* * * * *", "--pool", POOL]
        deploy += [argument for setting in settings for argument in ("--set", setting)]
        done = subprocess.run(deploy, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"deployed curate/nightly to the work pool {POOL!r}" in done.stdout
        working = [*python, "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"]
        patched = {**environment, "PYTHONPATH": str(tmp_path / "patch")}
        worker = stack.enter_context(process(working, patched, tmp_path / "worker.log"))
        yield Nights(environment, place, tmp_path, alerts, worker)


def jobs(record: dict[str, Any], stage: str) -> dict[str, bool]:
    """Source name → whether the stage's job was cached."""
    return {Path(job["source"]).name: job["cached"] for job in record["shards"] if job["stage"] == stage}


def test_three_nights(nights: Nights, corpus: Corpus) -> None:
    place = nights.place
    first = nights.next_record(datetime.min.replace(tzinfo=UTC))
    assert first["status"] == "completed"
    assert first["windows_scored"] == 7
    run = until(nights.flow_runs, 60, "the flow run's end")[0]
    assert run["auto_scheduled"]
    assert run["state_type"] == "COMPLETED"
    objects = {name.removeprefix(f"{place.prefix}/store/runs/{first['run_id']}/") for name in place.objects()}
    assert {"ranking.parquet", "export/README.md", "run.json", "report.html"} <= objects
    keys = ["ladm-stages", "ladm-scoring", "ladm-report"]
    artifacts = nights.ask("artifacts/filter", {"artifacts": {"key": {"any_": keys}}})
    assert {one["key"] for one in artifacts} == set(keys)
    report = f"{place.store}/runs/{first['run_id']}/report.html"
    assert any(one["key"] == "ladm-report" and f"]({report})" in one["data"] for one in artifacts)
    stages = json.loads(next(one["data"] for one in artifacts if one["key"] == "ladm-stages"))
    assert [row["stage"] for row in stages] == ["ingest", "length", "tokenize", "score", "rank", "export"]

    # One file added, one changed, one removed: exactly that is done.
    write_jsonl(corpus.folder / "diaries.jsonl", "Diaries", 3, [310, 410])
    write_jsonl(corpus.folder / "poems.jsonl", "Poems", 4, [360])
    place.upload(corpus.folder / "diaries.jsonl")
    place.upload(corpus.folder / "poems.jsonl")
    place.fs.rm_file(f"{place.prefix}/raw/letters.jsonl")
    second = nights.next_record(datetime.now(UTC))
    assert second["status"] == "completed"
    assert set(jobs(second, "ingest")) == {"diaries.jsonl", "poems.jsonl"}
    since = [one for one in nights.records() if one["started"] > first["started"]]
    assert sum(one["windows_scored"] for one in since) == 3  # whichever of the nights came first after each upload
    changes = {change: sum(one["refresh"][change]["files"] for one in since) for change in ("added", "changed")}
    assert {**changes, "removed": sum(one["refresh"]["removed"]["windows"] for one in since)} == {
        "added": 1, "changed": 1, "removed": 4,
    }  # fmt: skip
    third = nights.next_record(datetime.now(UTC))
    assert third["windows_scored"] == 0
    assert all(jobs(third, "ingest").values())

    # One shard fails: the run is Failed, and names it in what Prefect shows; the next one does only that shard.
    nights.fault.write_text("fails faulty")
    write_jsonl(corpus.folder / "faulty.jsonl", "Diaries", 5, [320])
    place.upload(corpus.folder / "faulty.jsonl")
    failed = until(lambda: next((one for one in nights.records() if one["failures"]), None), 600, "a failed run")
    assert failed["status"] == "failed"
    assert [one["shard"] for one in failed["failures"]] == ["faulty.jsonl"]
    told = until(lambda: [one for one in nights.flow_runs() if one["state_type"] == "FAILED"], 60, "a Failed flow run")
    assert "length faulty.jsonl" in told[0]["state"]["message"]
    failed_ones = {"task_runs": {"state": {"type": {"any_": ["FAILED"]}}}}
    tasks = until(lambda: nights.ask("task_runs/filter", failed_ones), 60, "the failed task run")
    assert {one["name"] for one in tasks} == {"length faulty.jsonl"}
    # Prefect's automations hear at once only of runs that were scheduled five minutes before they begin or earlier; the
    # first ones after a deployment are not.
    alert = until(lambda: nights.alerts, 480, "an alert")[0]
    assert "Failed" in alert["subject"]
    assert "length faulty.jsonl" in alert["body"]
    nights.fault.unlink()
    mended = until(
        lambda: next(
            (r for r in nights.records() if r["started"] > failed["started"] and r["status"] == "completed"), None
        ),
        600,
        "a run that mends it",
    )
    assert mended["windows_scored"] == 1
    assert jobs(mended, "score") == {"diaries.jsonl": True, "poems.jsonl": True, "faulty.jsonl": False}
    _check_a_machine_that_dies(nights, corpus)
    _check_secret_is_nowhere(nights)
    _check_prefects_own_deploying(nights)


def _check_a_machine_that_dies(nights: Nights, corpus: Corpus) -> None:
    """The worker and the run are gone at once, and cannot tell: the silence is noticed, and there is an alert."""
    nights.fault.write_text("hangs lonely")
    write_jsonl(corpus.folder / "lonely.jsonl", "Diaries", 6, [330])
    nights.place.upload(corpus.folder / "lonely.jsonl")
    hanging = {"name": {"any_": ["length lonely.jsonl"]}, "state": {"type": {"any_": ["RUNNING"]}}}
    task = until(lambda: nights.ask("task_runs/filter", {"task_runs": hanging}), 300, "a shard that hangs")[0]
    time.sleep(HEARTBEAT_SECONDS + 5)
    for process in [*psutil.Process(nights.worker.pid).children(recursive=True), psutil.Process(nights.worker.pid)]:
        process.kill()
    nights.fault.unlink()
    told = len(nights.alerts)

    def run() -> dict[str, Any]:
        return nights.ask("flow_runs/filter", {"flow_runs": {"id": {"any_": [task["flow_run_id"]]}}})[0]

    assert run()["state_type"] == "RUNNING"
    until(lambda: run()["state_type"] == "CRASHED", 300, "that the run is marked Crashed")
    alert = until(lambda: nights.alerts[told:], 60, "an alert")[0]
    assert "Crashed" in alert["subject"]


def _check_secret_is_nowhere(nights: Nights) -> None:
    """S3's secret is in no row of Prefect's database, no log and no object."""
    address = nights.environment["PREFECT_API_DATABASE_CONNECTION_URL"].replace("+asyncpg", "")
    pg_dump = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))[-1]
    dumped = subprocess.run([pg_dump, "--inserts", address], capture_output=True, check=True).stdout
    assert b"length faulty.jsonl" in dumped  # so it is that database
    logs = b"".join(path.read_bytes() for path in nights.folder.glob("*.log"))
    assert b"Finished in state Completed" in logs
    for content in (dumped, logs, *nights.place.objects().values()):
        assert SECRET.encode() not in content


def _check_prefects_own_deploying(nights: Nights) -> None:
    """`infra/prefect.yaml` says what `ladm deploy` does, to Prefect's own command."""
    (ours,) = nights.ask("deployments/filter", {})
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for command in (["work-pool", "create", "ladm", "--type", "process"],
                    ["deploy", "--prefect-file", str(INFRA / "prefect.yaml"), "--all"]):  # fmt: skip
        done = subprocess.run(
            [*prefect, *command], env=nights.environment, cwd=nights.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (theirs,) = nights.ask("deployments/filter", {})  # of the same name, so it took the place of ours
    assert (ours["work_pool_name"], theirs["work_pool_name"]) == (POOL, "ladm")
    for name in ("entrypoint", "pull_steps", "path", "concurrency_options", "tags", "parameter_openapi_schema"):
        assert theirs[name] == ours[name], name
    assert theirs["global_concurrency_limit"]["limit"] == ours["global_concurrency_limit"]["limit"] == 1
    assert [one["schedule"]["cron"] for one in theirs["schedules"]] == ["0 2 * * *"]


def test_served_from_one_process(corpus: Corpus, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    store = tmp_path / "store"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "LADM_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "ladm.flows.cli", "serve", "--store", str(store), "--cron", "* * * * *"]
    command += ["--port", str(port), *(argument for one in corpus.settings for argument in ("--set", one))]

    def records() -> list[dict[str, Any]]:
        return [read_record(Store(str(store)), run_id) for run_id in run_ids(Store(str(store)))]

    # It pauses its schedule when it stops, and must go on when it is started again.
    for start, stop in enumerate((signal.SIGINT, signal.SIGTERM), 1):
        already = len(records())
        with process(command, environment, tmp_path / f"{start}.log") as served:
            until(lambda already=already: len(records()) > already, 480, "a scheduled run")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
                assert b"<!DOCTYPE html>" in page.read()
            served.send_signal(stop)
            assert served.wait(60) == 0
        until(lambda: not listens(port), 30, "the end of its server")
        assert "Traceback" not in (tmp_path / f"{start}.log").read_text()
        assert "serving curate/nightly at '* * * * *' (UTC)" in (tmp_path / f"{start}.log").read_text()
    found = records()
    assert {one["status"] for one in found} == {"completed"}
    assert [one["windows_scored"] for one in found] == [7, *[0] * (len(found) - 1)]
