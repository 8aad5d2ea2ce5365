"""A Ray cluster that begins with no worker: runs make it grow by what their tasks ask for, and it shrinks after them.

The cluster is Ray's own fake one: its autoscaler (version 2, as on Kubernetes) starts nodes that are processes here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Corpus, run_arguments
from test_processes import start, wait_for
from test_runners import installed

from ladm.flows.dag.plan import Plan
from ladm.flows.orchestration.ray_runner import MOST_ASKED, ray_runner
from ladm.flows.orchestration.runners import runner_of
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.storage.store import Store

IDLE_SECONDS = 6
NO_GPU = "Ray's cluster has no GPU at present; scoring waits until it has grown one"
SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on the loopback interface alone
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a" * 64,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "180",  # a busy machine
}
EMPTY = (
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands"),
    *("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
)
"""What a cluster's configuration must name, though it is not needed here."""
WATCH = """
import ray, sys, time
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
while True:
    there = ray.cluster_resources()
    print(int(there.get("CPU", 0)), int(there.get("GPU", 0)), flush=True)
    time.sleep(0.5)
"""


class Cluster(NamedTuple):
    """A cluster that grows."""

    address: str
    seen: list[tuple[int, int]]
    """The cores and GPUs that it had, twice a second."""


def settings_of(address: str) -> dict[str, Any]:
    """Two groups of nodes, as in infra/kubernetes: with a core each, and with a GPU and no core."""
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    def group(least: int, most: int, **resources: int) -> dict[str, Any]:
        sizes = {"min_workers": least, "max_workers": most}
        return {"resources": {**resources, "object_store_memory": 80_000_000}, "node_config": {}, **sizes}

    return {
        "cluster_name": "fake",
        "max_workers": 4,
        "provider": {
            "type": "external",  # Ray's wheel lacks a file that its own type for this provider wants
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "cpu": group(0, 2, CPU=1),
            "gpu": group(0, 2, GPU=1),
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "file_mounts_sync_continuously": False,
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in EMPTY},
    }


@contextlib.contextmanager
def head_of_a_cluster(folder: Path, ports: list[int]) -> Iterator[str]:
    """The head, without cores, and its autoscaler; what it started is ended with it."""
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    address = f"127.0.0.1:{ports[0]}"
    (folder / "autoscaling.json").write_text(json.dumps(settings_of(address)))
    options = {
        "port": ports[0],
        "ray-client-server-port": ports[1],
        "node-ip-address": "127.0.0.1",
        "num-cpus": 0,
        "num-gpus": 0,
        "object-store-memory": 100_000_000,
        "include-dashboard": "false",
        "min-worker-port": 0,
        "max-worker-port": 0,
        "dashboard-agent-listen-port": 0,
        "temp-dir": folder / "ray",
        "autoscaling-config": folder / "autoscaling.json",
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    environment = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: b"Ray runtime started" in (folder / "log").read_bytes() or head.poll() is not None, 240)
        time.sleep(2)
        assert head.poll() is None, (folder / "log").read_text()
        yield address
    finally:
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(20)
        for process in Path("/proc").glob("[0-9]*"):  # what its nodes left: the name of the folder is in no other's
            with contextlib.suppress(OSError):
                if str(folder).encode() in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of a head alone, and what becomes of it."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    # Ray's sockets want a short path.
    with tempfile.TemporaryDirectory(prefix="ladm-ray-") as folder, head_of_a_cluster(Path(folder), ports) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        seen: list[tuple[int, int]] = []
        watching = subprocess.Popen([sys.executable, "-c", WATCH, address], stdout=subprocess.PIPE, text=True)

        def watch() -> None:
            assert watching.stdout is not None
            for line in watching.stdout:
                words = line.split()
                if len(words) == 2 and all(word.isdigit() for word in words):  # Ray says other things there, too
                    seen.append((int(words[0]), int(words[1])))

        threading.Thread(target=watch, daemon=True).start()
        try:
            wait_for(lambda: seen)
            assert seen[0] == (0, 0)
            yield Cluster(address, seen)
        finally:
            watching.kill()
            watching.wait()


@installed("ray")
@pytest.mark.slow
def test_a_run_on_a_cluster_that_begins_with_nothing(corpus: Corpus, tmp_path: Path, cluster: Cluster) -> None:
    store = tmp_path / "store"
    process = start([*run_arguments(corpus, store, "execution.retries=1"), "--runner", "ray"])
    out, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    record = json.loads(out)
    assert (record["windows_scored"], record["devices"]) == (7, ["CPUs of a Ray cluster"])
    assert max(cores for cores, _ in cluster.seen) == 2  # both nodes of the group, and no GPU, which nothing asked for
    assert max(gpus for _, gpus in cluster.seen) == 0
    wait_for(lambda: cluster.seen[-1] == (0, 0), 60)


def waiting_stage(folder: Path) -> Stage:
    """A stage that tells what it was given; of its jobs some end only when they are at work at the same time."""

    # A function within a function is sent to Ray's workers by value, as they need not be able to import the tests.
    def compute(job: Job, store: Store, key: str) -> Outcome:
        import ray

        (folder / f"here-{job.label}").touch()
        deadline = time.monotonic() + 120
        while len(list(folder.glob("here-score-*"))) < job.config["together"]:
            assert time.monotonic() < deadline, "no other job came"
            time.sleep(0.05)
        told = {"needs": ray.get_runtime_context().get_assigned_resources()}
        (folder / f"told-{job.label}.json").write_text(json.dumps(told))
        return Outcome(Counts(received=0, kept=0))

    return Stage(name="tiny", version="1", compute=compute)


@installed("ray")
@pytest.mark.slow
def test_scoring_asks_for_gpus(corpus: Corpus, tmp_path: Path, cluster: Cluster) -> None:
    import ray
    from prefect import flow

    from ladm.flows.config import load_config
    from ladm.flows.orchestration.environment import prefect_server
    from ladm.tasks.models.cache import cache_root
    from ladm.tasks.stage import StoreRecords, stage_task

    config = load_config(
        None, [*corpus.settings, "scorer.device=cuda", "execution.runner=ray"], str(tmp_path / "store")
    )
    plan = Plan(config, "score", ("score",), files=[], model=None)
    stage = waiting_stage(tmp_path)
    asked = [("score", 2)] * 2 + [("score", 0)] * 2 + [("tokenize", 0)] * 3  # the first two wait for one another
    jobs = [
        Job(stage=name, label=f"{name}-{number}", store=config.store, config={"together": together, "n": number})
        for number, (name, together) in enumerate(asked)
    ]

    @flow(persist_result=False)
    def submit_all() -> set[str]:
        records = StoreRecords(uri=config.store)
        records.save("tiny-records", overwrite=True)
        task = stage_task(stage, records, 0, 0)
        with runner_of(plan) as runner:
            assert (runner.models, runner.workers) == (MOST_ASKED, MOST_ASKED)
            futures = [runner.submit(task, job, holds_model=job.label.startswith("score")) for job in jobs]
            for future in futures:
                future.wait()
            return {future.state.message or future.state.name for future in futures}

    try:
        with prefect_server(cache_root()):
            assert submit_all() == {"Completed"}
    finally:
        ray.shutdown()
    assert max(gpus for _, gpus in cluster.seen) == 2
    assert max(cores for cores, _ in cluster.seen) >= 1
    told = {job.label: json.loads((tmp_path / f"told-{job.label}.json").read_text()) for job in jobs}
    assert {json.dumps(one["needs"]) for label, one in told.items() if label.startswith("score")} == {'{"GPU": 1.0}'}
    wait_for(lambda: cluster.seen[-1] == (0, 0), 60)


@installed("ray")
@pytest.mark.parametrize(
    ("address", "there", "given", "on_gpu", "at_once", "threads"),
    [
        ("ray://head:10001", {}, (None, None), True, (MOST_ASKED, MOST_ASKED), None),
        ("ray://head:10001", {}, (None, None), False, (MOST_ASKED, 1), "1"),
        ("ray://head:10001", {"CPU": 32.0, "GPU": 2.0}, (None, None), True, (MOST_ASKED, MOST_ASKED), None),
        ("ray://head:10001", {"CPU": 32.0}, (None, None), False, (MOST_ASKED, 1), "32"),
        ("ray://head:10001", {"CPU": 999.0, "GPU": 500.0}, (None, None), True, (999, 500), None),
        ("ray://head:10001", {}, (40, 8), True, (40, 8), None),
        ("ray://head:10001", {}, (40, 8), False, (40, 8), "5"),
        (None, {"CPU": 4.0, "GPU": 2.0}, (None, None), True, (4, 2), None),
        (None, {"CPU": 4.0}, (None, None), False, (4, 1), "4"),
    ],
)
def test_how_much_is_asked_of_ray(
    address: str | None,
    there: dict[str, float],
    given: tuple[int | None, int | None],
    on_gpu: bool,
    at_once: tuple[int, int],
    threads: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import prefect_ray
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(prefect_ray, "RayTaskRunner", lambda **options: contextlib.nullcontext())
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    waits = bool(address) and on_gpu and "GPU" not in there
    with warnings.catch_warnings(record=True) as said, ray_runner(*given, on_gpu) as runner:
        assert (runner.workers, runner.models) == at_once
        assert runner._for_models["runtime_env"]["env_vars"].get("OMP_NUM_THREADS") == threads
        assert runner._for_models["num_cpus"] == (0 if on_gpu else 1)
    assert [str(one.message) for one in said] == [NO_GPU] * waits
