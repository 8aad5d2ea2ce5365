"""Thousands of shards through one run, with Prefect's server on PostgreSQL: its memory, and what Prefect adds. Slow."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from test_nightly import postgres, prefect_on, until

from ladm.flows.config import load_config
from ladm.flows.dag.jobs import ask_ingest, ask_length
from ladm.flows.dag.preflight import preflight
from ladm.tasks.job import Job, run_job
from ladm.tasks.stages import ingest, length

__all__ = ["postgres"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
SHARDS = 5_000
MOST_MEMORY = 10**9
MOST_SECONDS_A_TASK = 0.050


def test_five_thousand_shards(postgres: str, tmp_path: Path) -> None:
    """Ingest and length filter of files of one document each: 10,000 tasks of next to no work."""
    (tmp_path / "sources").mkdir()
    for number in range(SHARDS):
        document = {"text": f"document {number} " + 300 * "word "}
        (tmp_path / "sources" / f"{number:04d}.jsonl").write_text(json.dumps(document) + "\n")
    settings = [f"sources={tmp_path}/sources/*.jsonl", "window.length=256", "ingest.pack_bytes=0"]
    arguments = ["run", "--until", "length", "--json", "--store", str(tmp_path / "store")]
    for setting in settings:
        arguments += ["--set", setting]
    with prefect_on(postgres, tmp_path) as environment:
        with (tmp_path / "run.log").open("wb") as log, (tmp_path / "record.json").open("wb") as out:
            # Not the installed command, whose script would be a process more.
            command = [
                sys.executable,
                "-c",
                "import sys, ladm.flows.cli as cli; sys.exit(cli.main())",
                *arguments,
            ]
            running = subprocess.Popen(command, stdout=out, stderr=log, env=environment)
            peak = peak_of(running)
        assert running.returncode == 0, (tmp_path / "run.log").read_text()[-2000:]
        record = json.loads((tmp_path / "record.json").read_text())
        tasks = sum(stage["run"] for stage in record["stages"].values())
        assert tasks == 2 * SHARDS
        assert record["stages"]["length"]["kept"] == SHARDS
        # An operator finds every one of them in Prefect.
        address = environment["PREFECT_API_URL"]
        until(lambda: completed(address) == tasks, 300, "all task runs in Prefect's database")
    plain = plain_loop(settings, tmp_path / "plain")
    added = (record["seconds"] - plain) / tasks
    print(f"{tasks} tasks: {record['seconds']:.1f} s, {plain:.1f} s without Prefect, peak {peak / 2**20:.0f} MiB")
    assert peak < MOST_MEMORY
    assert added < MOST_SECONDS_A_TASK


def peak_of(running: subprocess.Popen[bytes]) -> int:
    """Bytes: the most that a process held until it ended, by the kernel's own high-water mark."""
    peak = 0
    while running.poll() is None:
        status = Path(f"/proc/{running.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line)])
        time.sleep(0.2)
    assert peak > 0
    return peak


def completed(address: str) -> int:
    """Task runs that Prefect's server knows to be completed."""
    asked = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    request = urllib.request.Request(
        f"{address}/task_runs/count", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: int = json.loads(answer.read())
    return found


def plain_loop(settings: list[str], store: Path) -> float:
    """Seconds of the same jobs as plain function calls, one after the other."""
    plan: Any = preflight(load_config(None, settings, str(store)), "length")
    started = time.perf_counter()
    for listed in plan.files:
        ask = ask_ingest(plan, listed)
        name = listed.file.uri.rsplit("/", 1)[-1]
        job = Job(stage="ingest", label=name, store=str(store), config=ask.config, source=listed.file)
        done = run_job(ingest.STAGE, job)
        (ask,) = ask_length(plan)
        for shard in done.shards:
            inputs = {"documents": [shard]}
            run_job(length.STAGE, Job(stage="length", label=name, store=str(store), config=ask.config, inputs=inputs))
    return time.perf_counter() - started
