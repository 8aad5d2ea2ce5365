"""The same run on threads, on Ray and on Dask: the same bytes, one model a worker. Mostly slow."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments, write_jsonl
from test_processes import start

from flows import preflight
from flows.preflight import RUNNER_PACKAGES
from flows.runners import check_reachable
from tasks.errors import ConfigError

Cli = Callable[..., Answer]


def installed(runner: str) -> pytest.MarkDecorator:
    missing = [package for package in RUNNER_PACKAGES[runner] if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not there: pip install -e '.[{runner}]'")


CLUSTERS = [pytest.param(name, marks=[installed(name), pytest.mark.slow]) for name in ("ray", "dask")]

PATCH = """
import importlib.abc, importlib.util, os, sys
from pathlib import Path

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "tasks.scorers.attention":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            load = module.load_calculator
            def loading(*arguments, **options):
                with Path(os.environ["LADM_TEST_LOADED"]).open("a") as file:
                    print(os.getpid(), file=file)
                return load(*arguments, **options)
            module.load_calculator = loading
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
"""A sitecustomize.py for every process of a cluster: it notes who loads the model."""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets the id of each process that loads the model."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "patch"))
    monkeypatch.setenv("LADM_TEST_LOADED", str(tmp_path / "loaded"))
    return tmp_path / "loaded"


@pytest.fixture
def arguments(corpus: Corpus) -> Callable[..., list[str]]:
    """The arguments of a run of eight files on a runner."""
    for number in range(6):
        write_jsonl(corpus.folder / f"essays-{number}.jsonl", "Essays", 10 + number, [300, 60, 420])

    def given(store: Path, runner: str) -> list[str]:
        return [*run_arguments(corpus, store, "execution.retries=1"), "--runner", runner]

    return given


def run(arguments: list[str]) -> dict[str, Any]:
    process = start(arguments)
    out, log = process.communicate(timeout=400)
    assert process.returncode == 0, log
    assert "Traceback" not in log
    record: dict[str, Any] = json.loads(out)
    return record


def results(store: Path) -> dict[str, bytes]:
    """All that the latest run made for its user but for the accounts of the run itself, byte for byte."""
    folder = store / "runs" / (store / "latest").read_text()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert {"ranking.parquet", "export/parquet/train-00000-of-00001.parquet"} <= set(files)
    return {name: path.read_bytes() for name, path in files.items() if name not in ("run.json", "export/README.md")}


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
