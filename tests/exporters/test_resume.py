"""An export that is killed goes on where it stopped: what was finished is kept as it is, and nothing is there twice.

What is kept was looked at first: a part that was cut off or changed meanwhile is made again, and every file of the
manifest has a checksum, so that later damage is found too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_damage import flip_a_byte
from test_export import inputs_of, job_of, made_up

from ladm.tasks.errors import AccountError
from ladm.tasks.exporters.formats import EXPORTERS
from ladm.tasks.exporters.parquet import ParquetExporter
from ladm.tasks.exporters.tokens import TokenExport
from ladm.tasks.job import Job, Outcome, Stage, run_job
from ladm.tasks.manifest import Counts, Manifest, Shard
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.stage import StoreRecords
from ladm.tasks.stages import export
from ladm.tasks.stages.export import STAGE
from ladm.tasks.storage.store import DamagedFileError, Store

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
        run_job(export.STAGE, Job.from_dict(job))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
"""Does each job in a process of its own, which is killed after the second of a part's tables."""


@pytest.fixture(autouse=True)
def in_small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the killed processes wrote."""
    monkeypatch.setattr(export, "BATCH_BYTES", BATCH_BYTES)


def export_of(store: Store, model: Any, form: str) -> Job:
    of_tokens = issubclass(EXPORTERS[form].entry, TokenExport)
    options: dict[str, Any] = {"eos": 0, "pack": {"length": 64}} if of_tokens else {}
    job = job_of(store, inputs_of(store, made_up(200)), format=form, validation=0.3, part_bytes=20_000, **options)
    return job.replaced(identity=[model.tokenizer_digest], environment={"model": model.reference})


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Job]:
    """Format → an export that was killed while it wrote its third part, each in a store of its own."""
    folder, model = tmp_path_factory.mktemp("killed"), resolve_model(str(tiny_model))
    jobs = {form: export_of(Store(str(folder / form)), model, form) for form in EXPORTERS}
    ended = subprocess.run(
        [sys.executable, "-c", KILLING.format(part=KILLED_IN_PART, bytes=BATCH_BYTES)],
        input=json.dumps([job.as_dict() for job in jobs.values()]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == [str(-signal.SIGKILL)] * len(jobs), ended.stderr
    return jobs


@pytest.mark.parametrize("form", EXPORTERS)
def test_a_killed_export_goes_on_where_it_stopped(killed: dict[str, Job], form: str, tmp_path: Path) -> None:
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
    check_vouched_for(store, manifest)


def check_vouched_for(store: Store, manifest: Manifest) -> None:
    """Every file has the checksum of what is there, so that one bit of any of them is missed."""
    for file in manifest.files:
        content = store.read_bytes(file.path)
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest()), file.path


def flip(file: Path) -> None:
    flip_a_byte(file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def with_another(file: Path) -> None:
    """As long as it was, and whole in itself, but not what was written."""
    content = bytearray(file.read_bytes())
    content.reverse()
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, cut, with_another], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("form", EXPORTERS)
def test_what_was_damaged_before_an_export_goes_on_is_not_vouched_for(
    killed: dict[str, Job], form: str, damage: Any, tmp_path: Path
) -> None:
    job = killed[form]
    whole = run_job(STAGE, job)
    shutil.copytree(job.store, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    damaged = next(Path(store.full(file.path)) for file in whole.files if "00000" in file.path)
    damage(damaged)
    again = run_job(STAGE, job.replaced(store=store.uri))
    assert again.files == whole.files
    check_vouched_for(store, again)


@pytest.mark.parametrize("form", EXPORTERS)
def test_a_mended_export_keeps_the_checksums_of_all_parts(killed: dict[str, Job], form: str) -> None:
    """As a run mends it: one file is found damaged, and the job is done again."""
    job = killed[form]
    store, whole = Store(job.store), run_job(STAGE, job)
    assert len(whole.files) > 5
    flip_a_byte(Path(store.full(whole.files[3].path)))
    with pytest.raises(DamagedFileError):
        store.check(whole.files)
    mended = run_job(STAGE, job)
    assert mended.files == whole.files
    check_vouched_for(store, mended)
    flip_a_byte(Path(store.full(mended.files[0].path)))
    with pytest.raises(DamagedFileError) as found:
        store.check(mended.files)
    assert found.value.paths == [mended.files[0].path]
    run_job(STAGE, job)


@pytest.mark.parametrize("note", [None, b"", b"{}", b'[{"path": 1}]', b"[]"])
def test_a_part_without_a_sound_note_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: bytes | None
) -> None:
    """The process may have ended after a part's last file and before its note; the file may be an older one."""
    store = Store(str(tmp_path))
    job = job_of(store, inputs_of(store, made_up(100)), part_bytes=9_000)
    whole = run_job(STAGE, job)
    notes = sorted(tmp_path.glob(f"records/*/{whole.key}/*.json"))
    assert len(notes) == len(whole.files) > 3
    foreign = Path(store.full(whole.files[1].path))
    foreign.write_bytes(Path(store.full(whole.files[2].path)).read_bytes())
    if note is None:
        notes[1].unlink()
    else:
        notes[1].write_bytes(note)
    written: list[str] = []
    working = ParquetExporter.write
    monkeypatch.setattr(
        ParquetExporter, "write", lambda self, part, tables: (written.append(part.stem), working(self, part, tables))
    )
    assert run_job(STAGE, job).files == whole.files
    assert written == [notes[1].stem]
    check_vouched_for(store, whole)


def test_an_export_of_one_part_leaves_no_note(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert len(run_job(STAGE, job_of(store, inputs_of(store, made_up(10)))).files) == 1
    assert not (tmp_path / "records").exists()


def test_no_new_manifest_names_a_file_without_a_checksum(tmp_path: Path) -> None:
    file = Shard(key="k", path="export/ab/abcd", bytes=1, rows=0)
    job = Job(stage="export", label="x", store=str(tmp_path), config={})
    for outcome in (Outcome(Counts(), files=[file]), Outcome(Counts(), shards=[file])):
        with pytest.raises(AccountError, match="export x: export/ab/abcd was written, and its checksum is not known"):
            run_job(Stage(name="export", version="1", compute=lambda *_, outcome=outcome: outcome), job)


def test_an_export_that_an_earlier_version_left_without_checksums_is_made_again(tmp_path: Path) -> None:
    store, records = Store(str(tmp_path)), StoreRecords(uri=str(tmp_path))
    for stage, sound in {"export": False, "score": True}.items():
        store.write_bytes(f"{stage}/file", b"content")
        files = [Shard(key="k", path=f"{stage}/file", bytes=7, rows=0)]
        manifest = Manifest(stage=stage, key=stage, label="x", files=files)
        records.write_path(stage, json.dumps({"metadata": {}, "result": manifest.as_json().decode()}).encode())
        if sound:
            assert records.read_path(stage)
        else:
            with pytest.raises(FileNotFoundError):
                records.read_path(stage)
