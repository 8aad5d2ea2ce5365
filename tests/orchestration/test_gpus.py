"""Several GPUs of one machine: a process each, the same bytes as one process gives, and what becomes of lost ones.

No GPU is here: that two are is told by `gpus_of`, and what they calculate is calculated on the CPU.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Corpus, run_arguments, write_jsonl
from test_cancelling import check_cancelled, the_record
from test_processes import start, wait_for
from test_runners import PATCH, end_of, results

from ladm.flows.console import print_summary
from ladm.flows.orchestration.threads_runner import JOBS_A_MODEL, Threads, gpu_processes, gpus_of
from ladm.tasks import progress, stopping
from ladm.tasks.errors import SourceError
from ladm.tasks.job import Job, Stage
from ladm.tasks.job_processes import JobProcesses, LostProcessError
from ladm.tasks.passing import can_pass

TWO_GPUS = """
from ladm.flows.orchestration import threads_runner
threads_runner.gpus_of = lambda device: ["0", "1"]
"""
BESIDE = "scorer.beside={longfilter: {}, gzip: {}}"


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets the id of each process that loads the model."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "patch"), *sys.path]))
    monkeypatch.setenv("LADM_TEST_LOADED", str(tmp_path / "loaded"))
    monkeypatch.setenv("LADM_TEST_FAULT", str(tmp_path / "fault"))
    return tmp_path / "loaded"


@pytest.fixture
def many(corpus: Corpus) -> Corpus:
    """The corpus with six files more: eight shards to score."""
    for number in range(6):
        write_jsonl(corpus.folder / f"essays-{number}.jsonl", "Essays", 10 + number, [300, 60, 420])
    return corpus


def test_two_gpus_give_the_same_bytes_as_one_process(many: Corpus, tmp_path: Path, loaded: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    plain = end_of(start(run_arguments(many, one, BESIDE)))
    assert (plain["devices"], plain["windows_scored"]) == (["cpu"], 19)
    assert len(loaded.read_text().split()) == 1
    loaded.unlink()
    record = end_of(start(run_arguments(many, two, BESIDE), TWO_GPUS))
    assert (record["devices"], record["windows_scored"]) == (["cuda:0", "cuda:1"], 19)
    assert len(set(loaded.read_text().split())) == len(loaded.read_text().split()) == 2  # once in each
    assert results(two) == results(one)
    for store, before in ((one, TWO_GPUS), (two, "")):  # where a window is scored is no part of its key
        again = end_of(start(run_arguments(many, store, BESIDE), before))
        assert (again["windows_scored"], again["devices"]) == (0, [])


@pytest.mark.slow
def test_a_lost_process_is_replaced_and_its_shard_done_again(many: Corpus, tmp_path: Path, loaded: Path) -> None:
    whole, store = tmp_path / "whole", tmp_path / "store"
    end_of(start(run_arguments(many, whole)))
    loaded.unlink()
    (tmp_path / "fault").write_text("hangs 2")
    process = start(run_arguments(many, store, "execution.retries=2"), TWO_GPUS)
    wait_for(lambda: list(tmp_path.glob("hanging-*")))
    (hanging,) = tmp_path.glob("hanging-*")
    os.kill(int(hanging.name.partition("-")[2]), signal.SIGKILL)
    assert end_of(process)["windows_scored"] == 19
    assert len(loaded.read_text().split()) == 3
    assert results(store) == results(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_process(
    number: signal.Signals, corpus: Corpus, tmp_path: Path, loaded: Path
) -> None:
    """SIGINT goes to all of them, as a terminal sends it; SIGKILL to the run alone."""
    store = tmp_path / "store"
    (tmp_path / "fault").write_text("hangs 1")
    process = start(run_arguments(corpus, store), TWO_GPUS)
    wait_for(lambda: list(tmp_path.glob("hanging-*")))
    pids = [int(pid) for pid in loaded.read_text().split()]
    assert process.pid not in pids
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    _, log = process.communicate(timeout=60)
    wait_for(lambda: not any(map(is_running, pids)), 15)
    assert time.monotonic() - began < 15
    assert "Traceback" not in log
    if number == signal.SIGINT:
        check_cancelled(the_record(store), store)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- the processes by themselves -------------------------------------------------------------------------------

STAGE_MODULE = """
import json, os, threading, time
from pathlib import Path
from ladm.tasks import progress
from ladm.tasks.errors import SourceError
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts

class Unsendable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")
        self.lock = threading.Lock()

def compute(job, store, key):
    print("something that a library says on stdout")
    folder = Path(store.uri)
    told = {"pid": os.getpid(), "sees": os.environ["CUDA_VISIBLE_DEVICES"], "threads": os.environ["OMP_NUM_THREADS"]}
    (folder / f"told-{job.label}").write_text(json.dumps(told))
    progress.report("tiny", 7)
    how = job.config["how"]
    if how == "wait":
        deadline = time.monotonic() + 60
        while len(list(folder.glob("told-*"))) < job.config["others"]:
            assert time.monotonic() < deadline, "no other job came"
            time.sleep(0.05)
    elif how == "die":
        os.kill(os.getpid(), 9)
    elif how == "hang":
        time.sleep(600)
    elif how == "refuse":
        raise SourceError("sources: not that one")
    elif how == "unsendable":
        raise Unsendable("cannot", "travel")
    return Outcome(Counts(received=0, kept=0))

STAGE = Stage(name="tiny", version="1", compute=compute)
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage of a module of its own, which the processes find where this one does."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "tiny_gpu_stage.py").write_text(STAGE_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import tiny_gpu_stage

    stage: Stage = tiny_gpu_stage.STAGE
    yield stage
    del sys.modules["tiny_gpu_stage"]


@pytest.fixture
def used() -> list[str]:
    return []


@pytest.fixture
def gpus(used: list[str]) -> Iterator[JobProcesses]:
    processes = gpu_processes(["3", "7"], used)
    yield processes
    processes.close()


def job(folder: Path, label: str, how: str, others: int = 0) -> Job:
    return Job(stage="tiny", label=label, store=str(folder), config={"how": how, "others": others})


def told(folder: Path, label: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"told-{label}").read_text())
    return found


def test_jobs_are_shared_out_among_the_gpus(
    gpus: JobProcesses, used: list[str], tiny: Stage, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    heard: list[tuple[str, int]] = []

    def do(number: int) -> Any:
        progress.listener.set(lambda *what: heard.append(what))
        return gpus.run_jobs(tiny, job(tmp_path, str(number), "wait", 4))

    with ThreadPoolExecutor(4) as pool:  # all of them wait for the others: four are under way at once
        done = [one for several in pool.map(do, range(4)) for one in several]
    assert sorted(one.label for one in done) == ["0", "1", "2", "3"]
    found = [told(tmp_path, str(number)) for number in range(4)]
    assert sorted(one["sees"] for one in found) == ["3", "3", "7", "7"]
    assert len({(one["pid"], one["sees"]) for one in found}) == len({one["pid"] for one in found}) == 2
    assert heard == [("tiny", 7)] * 4
    assert used == ["cuda:0", "cuda:1"]
    assert "something" not in capfd.readouterr().out
    gpus.close()
    assert not any(is_running(one["pid"]) for one in found)


def test_errors_come_back_as_they_are(gpus: JobProcesses, used: list[str], tiny: Stage, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not that one"):
        gpus.run_jobs(tiny, job(tmp_path, "a", "refuse"))
    with pytest.raises(RuntimeError, match="Unsendable: cannot travel"):
        gpus.run_jobs(tiny, job(tmp_path, "b", "unsendable"))
    with pytest.raises(LostProcessError, match=r"cuda:0 ended before its job was done \(signal 9\)") as lost:
        gpus.run_jobs(tiny, job(tmp_path, "c", "die"))
    assert can_pass(lost.value)
    gpus.run_jobs(tiny, job(tmp_path, "d", ""))
    first, last = told(tmp_path, "a"), told(tmp_path, "d")
    assert (first["pid"] != last["pid"], first["sees"], last["sees"]) == (True, "3", "3")
    assert used == ["cuda:0"]  # one job at a time needs no other


def test_a_run_that_is_told_to_stop_ends_them(gpus: JobProcesses, tiny: Stage, tmp_path: Path) -> None:
    run = stopping.Stopping()
    threading.Timer(3, run.ask).start()
    with stopping.stoppable(run), pytest.raises(stopping.StoppedError):
        gpus.run_jobs(tiny, job(tmp_path, "a", "hang"))
    wait_for(lambda: not is_running(told(tmp_path, "a")["pid"]), 15)


@pytest.mark.parametrize(
    ("device", "there", "named", "found"),
    [
        ("cuda", 3, None, ["0", "1", "2"]),
        ("cuda", 2, "4,6", ["4", "6"]),
        ("cuda", 2, "GPU-aa, GPU-bb,-1,GPU-cc", ["GPU-aa", "GPU-bb"]),  # CUDA sees none from a wrong one on
        ("cuda", 1, None, []),
        ("cuda", 1, "5", []),
        ("cuda:1", 3, None, []),
        ("cpu", 3, None, []),
        ("mps", 0, None, []),
    ],
)
def test_which_gpus_are_used(
    device: str, there: int, named: str | None, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus_of(device) == found
    for most in (None, 1, 2):
        processes = len(found[:most]) if len(found[:most]) > 1 else 1
        assert Threads(16, most, device).models == JOBS_A_MODEL * processes


@pytest.mark.parametrize(
    ("devices", "line"),
    [
        (["cuda:0", "cuda:1"], "windows scored in this run: 7, on cuda:0, cuda:1\n"),
        (["cpu"], "windows scored in this run: 7\n"),
        ([], "windows scored in this run: 7\n"),
    ],
)
def test_the_summary_names_the_devices(devices: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    record: dict[str, Any] = {
        "run_id": "r",
        "status": "completed",
        "seconds": 1.0,
        "stages": {},
        "failures": [],
        "refresh": None,
        "store": "s",
        "shortfalls": [],
        "remedies": [],
        "windows_scored": 7,
        "devices": devices,
    }
    print_summary(record)
    assert line in capsys.readouterr().out
