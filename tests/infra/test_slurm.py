"""The scripts for Slurm, run by a `sbatch` and a `srun` that do here what Slurm's do; no Slurm is here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import Corpus, run_arguments, write_jsonl
from test_processes import ranking_of, score_records, start, wait_for

from ladm.flows.dag.lineage import Request
from ladm.flows.dag.waiting import Share, Waiting, share_of_array
from ladm.flows.runs.read import read_record, run_ids
from ladm.tasks.job import Job
from ladm.tasks.storage.store import Store

SLURM = Path(__file__).parents[2] / "infra" / "slurm"
TASKS = 3
WINDOWS = 7 + 27 * 2

SBATCH = """
import json, os, subprocess, sys
from pathlib import Path

spool = Path(os.environ["FAKE_SLURM"])
number = str(1000 + len(list(spool.glob("job-*"))))
options = []
while sys.argv[1].startswith("-"):
    options.append(sys.argv.pop(1))
given = dict(option.partition("=")[::2] for option in options)
script, *arguments = sys.argv[1:]
copied = spool / f"job-{number}"  # as Slurm does: where the script lay is not known when it is run
copied.write_text(Path(script).read_text())
(spool / f"asked-{number}.json").write_text(json.dumps({"options": options, "arguments": arguments}))
first, _, last = given.get("--array", "0-0").partition("-")
tasks = range(int(first), int(last) + 1)
after = given.get("--dependency", "").removeprefix("afterany:")
waits = "".join(f"while [ ! -f {one} ]; do sleep 0.2; done; " for one in
                ([spool / f"ended-{after}-{task}" for task in json.loads((spool / f"tasks-{after}").read_text())]
                 if after else []))
(spool / f"tasks-{number}").write_text(json.dumps(list(tasks)))
for task in tasks:
    mine = {"SLURM_JOB_ID": f"{number}{task}", "SLURM_CPUS_PER_TASK": "2"}
    if "--array" in given:
        mine |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_MIN": first,
                 "SLURM_ARRAY_TASK_MAX": last, "SLURM_ARRAY_TASK_COUNT": str(len(tasks))}
    line = f"{waits}bash {copied} \\"$@\\"; echo $? > {spool}/ended-{number}-{task}"
    with (spool / f"log-{number}-{task}").open("wb") as log:
        process = subprocess.Popen(["bash", "-c", line, "job", *arguments], env={**os.environ, **mine},
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (spool / f"pid-{number}-{task}").write_text(str(process.pid))
print(number)
"""
"""Takes what submit.sh may give it, and starts each task as a process of its own at once, or after another job."""

SRUN = """
import os, sys
assert sys.argv.pop(1) == "--cpus-per-task=2"
os.execvp(sys.argv[1], sys.argv[1:])
"""

SLOW = """
import importlib.abc, importlib.util, sys, time

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "ladm.tasks.scorers.window_scores":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            quick = module.score_windows
            def slow(*arguments):
                time.sleep(1)
                return quick(*arguments)
            module.score_windows = slow
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
"""Makes scoring take longer than starting, as it does where it is worth an array."""


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the fake Slurm knows of its jobs; they are ended with the test."""
    tools, spool = tmp_path / "tools", tmp_path / "spool"
    tools.mkdir()
    spool.mkdir()
    (tools / "sitecustomize.py").write_text(SLOW)
    programs = {
        "sbatch": SBATCH,
        "srun": SRUN,
        "ladm": "import sys\nfrom ladm.flows.cli import main\nsys.exit(main())\n",
    }
    for name, text in programs.items():
        (tools / name).write_text(f"#!{sys.executable}\n{text}")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(spool))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tools), *sys.path]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PREFECT_API_DATABASE_CONNECTION_URL", raising=False)
    yield spool
    for file in spool.glob("pid-*"):
        if not (spool / file.name.replace("pid", "ended")).exists():
            os.killpg(int(file.read_text()), signal.SIGKILL)


def config_of(corpus: Corpus, store: Path, tmp_path: Path) -> Path:
    """The corpus and its settings as a configuration file, which is what submit.sh takes."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(corpus.values(store)))
    return tmp_path / "config.yaml"


def submit(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(SLURM / "submit.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
def test_an_array_scores_and_a_last_job_ranks(corpus: Corpus, tmp_path: Path, spool: Path) -> None:
    """One task of the array is killed in the middle: the others do its share."""
    for number in range(27):
        write_jsonl(corpus.folder / f"essays-{number}.jsonl", "Essays", 10 + number, [300, 60, 420])
    plain, store = tmp_path / "plain", tmp_path / "store"
    done = submit(config_of(corpus, store, tmp_path), TASKS, "--gpus-per-node=4", "--partition=gpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"scoring: array 1000, {TASKS} jobs; ranking: job 1001, when they have ended\n"
    array, last = (json.loads((spool / f"asked-{number}.json").read_text()) for number in (1000, 1001))
    assert array["options"] == ["--parsable", f"--array=0-{TASKS - 1}", "--gpus-per-node=4", "--partition=gpu"]
    assert last["options"] == ["--parsable", "--dependency=afterany:1000", "--gpus-per-node=4", "--partition=gpu"]
    wait_for(lambda: score_records(store), 200)
    os.killpg(int((spool / "pid-1000-1").read_text()), signal.SIGKILL)
    (spool / "ended-1000-1").write_text("137")  # as Slurm would know
    logs = lambda: "\n".join(path.read_text(errors="replace") for path in sorted(spool.glob("log-*")))  # noqa: E731
    wait_for((spool / "ended-1001-0").exists, 400)
    codes = {path.name: path.read_text().strip() for path in spool.glob("ended-*")}
    assert codes == {"ended-1000-0": "0", "ended-1000-1": "137", "ended-1000-2": "0", "ended-1001-0": "0"}, logs()
    records = [read_record(Store(str(store)), run) for run in run_ids(Store(str(store)))]
    (ranked,) = [record for record in records if record["until"] == "export"]
    scored = [record["windows_scored"] for record in records if record["until"] == "score"]
    assert (ranked["windows_scored"], ranked["stages"]["score"]["cached"]) == (0, 29)
    assert ranked["stages"]["score"]["kept"] == WINDOWS
    # Each did a part, and little was done twice: what two had at hand at once.
    assert len(scored) == 2  # and the killed one left no record
    assert all(0 < windows < WINDOWS for windows in scored)
    assert sum(scored) < 1.5 * WINDOWS
    process = start(run_arguments(corpus, plain))
    _, log = process.communicate(timeout=200)
    assert process.returncode == 0, log
    assert ranking_of(store) == ranking_of(plain)


def test_what_cannot_be_submitted_is_refused(tmp_path: Path, spool: Path) -> None:
    config = tmp_path / "config.yaml"
    config.touch()
    for arguments in ([], [config], [tmp_path / "none.yaml", "8"], [config, "eight"], [config, "0"]):
        refused = submit(*arguments)
        assert (refused.returncode, refused.stderr.startswith("usage: ")) == (2, True)
    assert not list(spool.iterdir())


def test_the_scripts_are_sound() -> None:
    for script in sorted(SLURM.iterdir()):
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
        assert script.read_text().startswith("#!/bin/bash\n")
    assert os.access(SLURM / "submit.sh", os.X_OK)
    options = [line for line in (SLURM / "ladm.sbatch").read_text().splitlines() if line.startswith("#SBATCH ")]
    assert all(line.startswith("#SBATCH --") for line in options)


# -- where each run of an array begins -------------------------------------------------------------------------


def slurm(number: int, first: int, last: int) -> dict[str, str]:
    values = {"ID": number, "MIN": first, "MAX": last}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({}, None),
        (slurm(0, 0, 3), Share(0, 4)),
        (slurm(3, 0, 3), Share(3, 4)),
        (slurm(14, 5, 14), Share(9, 10)),
        (slurm(0, 0, 0), None),
        (slurm(9, 0, 3), None),
        ({**slurm(1, 0, 3), "SLURM_ARRAY_TASK_MAX": ""}, None),
    ],
)
def test_the_share_of_a_run_in_an_array(environment: dict[str, str], share: Share | None) -> None:
    assert share_of_array(environment) == share


LABELS = [f"shard {number}" for number in range(400)]


def order(share: Share | None, labels: list[str] = LABELS) -> list[str]:
    waiting = Waiting(share)
    for label in labels:
        waiting.add(Request("score", "", Job(stage="score", label=label, store="s", config={"of": label})))
    assert len(waiting) == len(labels)
    assert sorted(one.job.label for one in waiting) == sorted(labels)
    return [waiting.next().job.label for _ in labels]


def test_runs_of_an_array_begin_with_parts_of_their_own_and_do_not_go_on_side_by_side() -> None:
    assert order(None) == LABELS
    orders = [order(Share(number, 4)) for number in range(4)]
    assert all(sorted(one) == sorted(LABELS) for one in orders)
    assert all(order(Share(number, 4), LABELS[::-1]) == orders[number] for number in range(4))  # whatever came first
    first = [set(one[:70]) for one in orders]
    assert len(set.union(*first)) == 4 * 70
    # What is left when one of them never came: the three others, three at hand each, have little in common.
    left = [[label for label in one if label not in set.union(*first[:3])] for one in orders[:3]]
    for at in range(0, 150, 3):
        at_hand = [set(one[at : at + 3]) for one in left]
        assert len(set.union(*at_hand)) >= 6
