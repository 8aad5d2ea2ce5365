"""An export that is killed goes on where it stopped: what was finished is kept as it is, and nothing is there twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_export import inputs_of, job_of, made_up

from ladm.tasks.exporters.formats import FORMATS
from ladm.tasks.job import Job, run_job
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.stages import export
from ladm.tasks.stages.export import STAGE
from ladm.tasks.storage.store import Store

KILLED_IN_PART = 2
BATCH_BYTES = 4000
KILLING = """
import json, os, signal, sys
from ladm.tasks.stages import export
from ladm.tasks.job import Job, run_job

in_order = export._in_order

def dying(file, part, key):
    for number, table in enumerate(in_order(file, part, key)):
        yield table
        if (part.index, number) == ({part}, 1):
            os.kill(os.getpid(), signal.SIGKILL)

export._in_order = dying
export.BATCH_BYTES = {bytes}
for job in json.load(sys.stdin):
    pid = os.fork()
    if not pid:
        run_job(export.STAGE, Job.model_validate(job))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
"""Does each job in a process of its own, which is killed after the second of a part's tables."""


def export_of(store: Store, model: Any, form: str) -> Job:
    of_text = form in ("parquet", "jsonl.zst", "datasets")
    options: dict[str, Any] = {} if of_text else {"eos": 0, "pack": {"length": 64}}
    job = job_of(store, inputs_of(store, made_up(200)), format=form, validation=0.3, part_bytes=20_000, **options)
    return job.model_copy(update={"identity": [model.tokenizer_digest], "environment": {"model": model.reference}})


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Job]:
    """Format → an export that was killed while it wrote its third part, each in a store of its own."""
    folder, model = tmp_path_factory.mktemp("killed"), resolve_model(str(tiny_model))
    jobs = {form: export_of(Store(str(folder / form)), model, form) for form in FORMATS}
    ended = subprocess.run(
        [sys.executable, "-c", KILLING.format(part=KILLED_IN_PART, bytes=BATCH_BYTES)],
        input=json.dumps([job.model_dump(mode="json") for job in jobs.values()]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == [str(-signal.SIGKILL)] * len(jobs), ended.stderr
    return jobs


@pytest.mark.parametrize("form", FORMATS)
def test_a_killed_export_goes_on_where_it_stopped(
    killed: dict[str, Job], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BATCH_BYTES", BATCH_BYTES)
    job = killed[form]
    store, key = Store(job.store), STAGE.key(job)
    folder = Path(store.full(f"export/{key[:2]}/{key}"))
    left = {file: file.stat() for file in folder.rglob("*") if file.is_file()}
    finished = {file: status for file, status in left.items() if file.suffix != ".tmp"}
    assert finished
    assert len(left) > len(finished), "it was killed while it wrote a file"

    manifest = run_job(STAGE, job)
    for file, before in finished.items():
        after = file.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), file

    other = Store(str(tmp_path / "undisturbed"))
    undisturbed = run_job(STAGE, export_of(other, resolve_model(job.environment["model"]), form))
    assert undisturbed.key == key
    read = {file.path: store.read_bytes(file.path) for file in manifest.files}
    assert read == {file.path: other.read_bytes(file.path) for file in undisturbed.files}
    assert len(finished) < len(read)
    assert {Path(store.full(path)) for path in read} >= finished.keys()
    assert manifest.counts == undisturbed.counts
