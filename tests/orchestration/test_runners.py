"""The same run on threads, on Ray and on Dask: the same bytes, one model a worker, workers that die. Mostly slow."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments, write_jsonl
from test_processes import start, wait_for

from ladm.flows.dag import preflight
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.preflight import RUNNER_PACKAGES
from ladm.flows.dag.stages import told_stages
from ladm.flows.orchestration import ray_runner
from ladm.flows.orchestration.clusters import LOST_WORKERS, check_reachable
from ladm.flows.orchestration.runners import runner_of
from ladm.flows.runs.read import record_files
from ladm.tasks.errors import ConfigError
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]


def installed(runner: str) -> pytest.MarkDecorator:
    missing = [package for package in RUNNER_PACKAGES[runner] if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not there: pip install -e '.[{runner}]'")


CLUSTERS = [pytest.param(name, marks=[installed(name), pytest.mark.slow]) for name in ("ray", "dask")]

PATCH = """
import importlib.abc, importlib.util, os, sys, time
from pathlib import Path

def load_calculator(load):
    def loading(*arguments, **options):
        with Path(os.environ["LADM_TEST_LOADED"]).open("a") as file:
            print(os.getpid(), file=file)
        return load(*arguments, **options)
    return loading

def score_windows(score):
    calls = []
    def scoring(*arguments):
        calls.append(1)
        fault = Path(os.environ["LADM_TEST_FAULT"])
        try:
            how, at = fault.read_text().split()
            if how == "dies":
                os.kill(os.getpid(), 9)
            if len(calls) == int(at):
                fault.rename(fault.with_name(f"hanging-{os.getpid()}"))
                time.sleep(600)
        except FileNotFoundError:  # none, or another process was quicker
            pass
        return score(*arguments)
    return scoring

WRAPPED = {"ladm.tasks.scorers.calculator": load_calculator, "ladm.tasks.scorers.window_scores": score_windows}

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        wrap = WRAPPED.pop(name, None)
        if wrap is None:
            return None
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            setattr(module, wrap.__name__, wrap(getattr(module, wrap.__name__)))
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
"""A sitecustomize.py for every process of a cluster: it notes who loads the model.

While the file that LADM_TEST_FAULT names exists, a process that scores hangs at its third batch ("hangs 3"; only one,
for the file is taken away, and its new name tells which), or dies at every batch ("dies 0").
"""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets the id of each process that loads the model."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "patch"))
    monkeypatch.setenv("LADM_TEST_LOADED", str(tmp_path / "loaded"))
    monkeypatch.setenv("LADM_TEST_FAULT", str(tmp_path / "fault"))
    return tmp_path / "loaded"


@pytest.fixture
def arguments(corpus: Corpus) -> Callable[..., list[str]]:
    """The arguments of a run of eight files on a runner."""
    for number in range(6):
        write_jsonl(corpus.folder / f"essays-{number}.jsonl", "Essays", 10 + number, [300, 60, 420])

    def given(store: Path, runner: str) -> list[str]:
        return [*run_arguments(corpus, store, "execution.retries=1"), "--runner", runner]

    return given


def run(arguments: list[str], code: int = 0) -> dict[str, Any]:
    return end_of(start(arguments), code)


def end_of(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    out, log = process.communicate(timeout=400)
    assert process.returncode == code, log
    assert "Traceback" not in log
    record: dict[str, Any] = json.loads(out)
    return record


def results(store: Path) -> dict[str, bytes]:
    """All that the latest run made for its user but for the accounts of the run itself, byte for byte."""
    folder = store / "runs" / (store / "latest").read_text()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert {"ranking.parquet", "export/parquet/train-00000-of-00001.parquet"} <= set(files)
    account = {Path(path).name for path in record_files(folder.name)}
    return {name: path.read_bytes() for name, path in files.items() if name not in {*account, "export/README.md"}}


@pytest.mark.parametrize("runner", CLUSTERS)
def test_the_same_bytes_as_on_threads(
    runner: str, arguments: Callable[..., list[str]], tmp_path: Path, loaded: Path
) -> None:
    threads, cluster = tmp_path / "threads", tmp_path / "cluster"
    run(arguments(threads, "threads"))
    loaded.unlink()
    record = run(arguments(cluster, runner))
    assert (record["stages"]["score"]["run"], record["windows_scored"]) == (8, 19)
    assert results(cluster) == results(threads)
    assert len(loaded.read_text().split()) == 1  # by one worker, once, though eight shards were scored
    # What one runner made the other finds.
    for store, other in ((cluster, "threads"), (threads, runner)):
        again = run(arguments(store, other))
        assert {stage: summary["run"] for stage, summary in again["stages"].items()} == dict.fromkeys(
            again["stages"], 0
        )
    assert len(loaded.read_text().split()) == 1


def tiny_stage(folder: Path) -> Stage:
    """A stage that tells where it ran, and fails if another job of it runs in the same GPU at the same time."""

    # A function within a function is sent to Ray's workers by value, as they need not be able to import the tests.
    def compute(job: Job, store: Store, key: str) -> Outcome:
        import sys
        import types

        import ray

        holder = sys.modules.setdefault("tiny_model", types.ModuleType("tiny_model"))
        holder.jobs = getattr(holder, "jobs", 0) + 1
        context = ray.get_runtime_context()
        ids = context.get_accelerator_ids()["GPU"]
        for gpu in ids:
            (folder / f"gpu-{gpu}").mkdir()  # there if another job is in this GPU
        if job.config["together"]:  # as many jobs as there are GPUs must be able to run at once
            (folder / f"here-{job.label}").touch()
            deadline = time.monotonic() + 60
            while len(list(folder.glob("here-*"))) < job.config["together"]:
                assert time.monotonic() < deadline, "no other job came"
                time.sleep(0.05)
        time.sleep(0.2)
        for gpu in ids:
            (folder / f"gpu-{gpu}").rmdir()
        told = {
            "pid": os.getpid(),
            "jobs": holder.jobs,
            "needs": context.get_assigned_resources(),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        (folder / f"told-{job.label}.json").write_text(json.dumps(told))
        return Outcome(Counts(received=0, kept=0))

    return Stage(name="tiny", version="1", compute=compute)


@installed("ray")
@pytest.mark.slow
@pytest.mark.parametrize("gpus", [1, 2])
def test_what_tasks_ask_of_ray(gpus: int, corpus: Corpus, tmp_path: Path) -> None:
    """Ray takes our word for its GPUs; who is given which is the same as with real ones."""
    import ray
    from prefect import flow

    from ladm.flows.config import load_config
    from ladm.flows.orchestration.environment import prefect_server
    from ladm.tasks.models.cache import cache_root
    from ladm.tasks.stage import StoreRecords, stage_task

    settings = ["scorer.device=cuda", "execution.runner=ray"]
    config = load_config(None, [*corpus.settings, *settings], str(tmp_path / "store"))
    plan = Plan(config, "score", told_stages(config, "score"), files=[], model=None)
    asked = [("score", gpus)] * gpus + [("score", 0)] * 4 + [("tokenize", 0)] * 2
    jobs = [
        Job(stage=stage, label=f"{stage}-{number}", store=config.store, config={"together": together, "n": number})
        for number, (stage, together) in enumerate(asked)
    ]

    stage = tiny_stage(tmp_path)

    @flow(persist_result=False)
    def submit_all() -> list[Any]:
        records = StoreRecords(uri=config.store)
        records.save("tiny-records", overwrite=True)
        task = stage_task(stage, records, 0, 0)
        with runner_of(plan) as runner:
            assert (runner.models, runner.workers) == (gpus, 2)
            futures = [runner.submit(task, job) for job in jobs]
            for future in futures:
                future.wait()
            return [future.state.message or future.state.name for future in futures]

    ray.init(num_cpus=2, num_gpus=gpus, include_dashboard=False, log_to_driver=False, namespace="prefect")
    try:
        with prefect_server(cache_root()):
            assert set(submit_all()) == {"Completed"}
    finally:
        ray.shutdown()
    told = {job.label: json.loads((tmp_path / f"told-{job.label}.json").read_text()) for job in jobs}
    scoring = [one for label, one in told.items() if label.startswith("score")]
    rest = [one for label, one in told.items() if label.startswith("tokenize")]
    assert {json.dumps(one["needs"]) for one in scoring} == {'{"GPU": 1.0}'}
    assert {json.dumps(one["needs"]) for one in rest} == {'{"CPU": 1.0}'}
    # A worker a GPU, each for all of its jobs, so that the model is loaded once in each; no CPU stage gets in there.
    assert {one["visible"] for one in scoring} == {str(gpu) for gpu in range(gpus)}
    workers = {one["pid"] for one in scoring}
    assert len(workers) == gpus
    assert sum(max(one["jobs"] for one in scoring if one["pid"] == pid) for pid in workers) == len(scoring)
    assert not workers & {one["pid"] for one in rest}
    assert {one["visible"] for one in rest} <= {None, ""}


@pytest.mark.parametrize("runner", CLUSTERS)
def test_a_worker_killed_in_the_middle_of_scoring(
    runner: str, arguments: Callable[..., list[str]], tmp_path: Path, loaded: Path
) -> None:
    threads, cluster = tmp_path / "threads", tmp_path / "cluster"
    undisturbed = run(arguments(threads, "threads"))
    loaded.unlink()
    (tmp_path / "fault").write_text("hangs 3")
    going = start(arguments(cluster, runner))
    wait_for(lambda: list(tmp_path.glob("hanging-*")), 300)
    (hanging,) = tmp_path.glob("hanging-*")
    killed = int(hanging.name.removeprefix("hanging-"))
    assert [int(pid) for pid in loaded.read_text().split()] == [killed]
    os.kill(killed, signal.SIGKILL)
    record = end_of(going)
    # The shard at hand was done again, what was scored before was not; in the record it is as if nothing had been.
    assert record["failures"] == []
    for summary in ("score", "rank", "export"):
        counted = {name: record["stages"][summary][name] for name in ("run", "cached", "failed", "in", "kept")}
        assert counted == {name: undisturbed["stages"][summary][name] for name in counted}
    assert (record["stages"]["score"]["run"], record["windows_scored"]) == (8, 19)
    assert results(cluster) == results(threads)
    first, second = (int(pid) for pid in loaded.read_text().split())  # the worker in its place loads the model, once
    assert first == killed != second


@pytest.mark.parametrize("runner", CLUSTERS)
def test_a_shard_that_kills_every_worker(
    runner: str, arguments: Callable[..., list[str]], tmp_path: Path, loaded: Path
) -> None:
    """It is given up after so many workers, the run ends Failed and names it, and the next one does what is left."""
    store = tmp_path / "store"
    (tmp_path / "fault").write_text("dies 0")
    failed = run([*arguments(store, runner), "--set", f"sources={tmp_path}/corpus/letters.jsonl"], code=1)
    assert len(loaded.read_text().split()) == 1 + LOST_WORKERS
    assert [(failure["stage"], failure["shard"]) for failure in failed["failures"]] == [("score", "letters.jsonl")]
    assert "died" in failed["failures"][0]["error"]
    (tmp_path / "fault").unlink()
    mended = run([*arguments(store, runner), "--set", f"sources={tmp_path}/corpus/letters.jsonl"])
    assert {stage: mended["stages"][stage]["run"] for stage in ("ingest", "length", "tokenize", "score")} == {
        "ingest": 0, "length": 0, "tokenize": 0, "score": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("runner", "package"), [("ray", "prefect-ray"), ("dask", "prefect-dask")])
def test_a_runner_that_is_not_installed(
    runner: str, package: str, corpus: Corpus, ladm: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: None)
    answer = ladm(*run_arguments(corpus, tmp_path / "store"), "--runner", runner)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1), answer.err
    assert f"{runner} needs the package {package}, which is not installed; pip install 'ladm[{runner}]'" in answer.err
    assert not (tmp_path / "store").exists()


def test_runners_that_cannot_be(corpus: Corpus, ladm: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ladm(*run_arguments(corpus, tmp_path / "store"), "--runner", "slurm")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert "'threads', 'ray', 'dask'" in answer.err
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: object())
    answer = ladm(*run_arguments(corpus, tmp_path / "store", "scorer.device=cuda:1", "execution.runner=ray"))
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert "scorer.device: 'cuda:1' is one GPU of one machine; with ray give cuda" in answer.err


@pytest.mark.parametrize(
    ("cluster", "prefect", "refused"),
    [
        ("", None, False),
        ("ray://127.0.0.1:10001", "http://127.0.0.1:4200/api", False),
        ("auto", "http://127.0.0.1:4200/api", False),
        ("ray://head:10001", "http://prefect:4200/api", False),
        ("ray://head:10001", "http://127.0.0.1:4200/api", True),
        ("head:6379", None, True),
    ],
)
def test_a_cluster_needs_a_prefect_server_that_it_can_reach(
    cluster: str, prefect: str | None, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    if not refused:
        check_reachable("ray", prefect)
        return
    with pytest.raises(ConfigError, match=f"PREFECT_API_URL: the tasks on RAY_ADDRESS={cluster} need a Prefect server"):
        check_reachable("ray", prefect)


@pytest.mark.parametrize("users", [{}, {"RAY_AUTH_MODE": "disabled"}, {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}])
def test_a_ray_cluster_made_here_is_of_this_machine_alone(
    users: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens on the loopback interface, and asks for a token; afterwards the environment is as it was."""
    names = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    tokens = set()
    for _ in range(2):
        with ray_runner._ray_of_this_machine_alone():
            assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
            assert os.environ["RAY_AUTH_MODE"] == users.get("RAY_AUTH_MODE", "token")
            tokens.add(os.environ.get("RAY_AUTH_TOKEN"))
        assert {name: os.environ[name] for name in names if name in os.environ} == users
    assert tokens == {None} if "RAY_AUTH_MODE" in users else len(tokens) == 2


@installed("ray")
@pytest.mark.slow
def test_nothing_of_a_ray_cluster_made_here_listens_elsewhere() -> None:
    program = """
import ipaddress, psutil, ray
from ladm.flows.orchestration.ray_runner import _ray_of_this_machine_alone
with _ray_of_this_machine_alone():
    ray.init(include_dashboard=False, num_cpus=1, log_to_driver=False, logging_level="ERROR")
    found = [c.laddr.ip for p in [psutil.Process(), *psutil.Process().children(recursive=True)]
             for c in p.net_connections("inet") if c.status == "LISTEN"]
    loopback = [ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback for ip in found]
    print(len(found) > 3, all(loopback))
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert told.stdout.splitlines()[-1] == "True True"
