"""The store: files appear whole or not at all, and a record counts only while its data is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from ladm.tasks.errors import AccountError
from ladm.tasks.job import Job, Outcome, QuarantineEntry, Stage, run_job
from ladm.tasks.manifest import Counts, Manifest, Shard, stage_key
from ladm.tasks.stage import StoreRecords
from ladm.tasks.storage.store import Store

TABLE = pa.table({"n": pa.array([1, 2, 3], type=pa.int64())})


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_shard_is_written_whole_and_read_back(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    shard = store.write_shard("score", "abcd", TABLE)
    assert (shard.path, shard.rows) == ("score/ab/abcd.parquet", 3)
    assert files_of(tmp_path) == ["score/ab/abcd.parquet"]
    assert store.size(shard.path) == shard.bytes
    assert store.read_shard(shard).equals(TABLE)
    assert [batch.num_rows for batch in store.shard_batches(shard, rows=2)] == [2, 1]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(RuntimeError), store.shard_writer("score", "abcd", TABLE.schema) as writer:  # noqa: PT012
        writer.write(TABLE)
        raise RuntimeError("in the middle")
    assert files_of(tmp_path) == []


class UploadingFile(AbstractBufferedFile):
    """A file of an object store: what was written appears when the last chunk is uploaded."""

    def _initiate_upload(self) -> None:
        self.parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self.parts.append(self.buffer.getvalue())
        if final:
            self.fs.objects[self.path] = b"".join(self.parts)
        return True

    def discard(self) -> None:
        self.parts = []


class UploadingFileSystem(AbstractFileSystem):
    """An object store of a few lines."""

    protocol = "uploading"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}

    def _open(self, path: str, mode: str = "wb", **options: object) -> UploadingFile:
        return UploadingFile(self, path, mode, block_size=5)


def test_an_interrupted_upload_leaves_nothing() -> None:
    store = Store("memory://bucket")
    store.fs = objects = UploadingFileSystem()
    with store.writing("score/ab/whole") as file:
        file.write(b"all of it")
    assert objects.objects == {"/bucket/score/ab/whole": b"all of it"}
    with pytest.raises(RuntimeError), store.writing("score/ab/half") as file:  # noqa: PT012
        file.write(b"half of it")
        raise RuntimeError("in the middle")
    del file
    assert list(objects.objects) == ["/bucket/score/ab/whole"]


def test_equal_tables_make_equal_bytes(tmp_path: Path) -> None:
    one, other = Store(str(tmp_path / "a")), Store(str(tmp_path / "b"))
    paths = [Path(store.full(store.write_shard("score", "abcd", TABLE).path)) for store in (one, other)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_publishing_again_replaces(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("a", b"one")
    store.write_bytes("b", b"two")
    store.publish("a", "runs/x/data")
    store.publish("b", "runs/x/data")
    assert store.read_bytes("runs/x/data") == b"two"
    assert store.read_bytes("a") == b"one"


def _stage(outcome: Outcome) -> Stage:
    return Stage(name="length", version="1", compute=lambda job, store, key: outcome, roles=("documents",))


def test_a_record_counts_only_while_its_data_is_there(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    records = StoreRecords(uri=str(tmp_path))
    shard = store.write_shard("score", "abcd", TABLE)
    manifest = Manifest(stage="score", key="abcd", label="x", shards=[shard])
    content = b'{"metadata": {}, "result": ' + _json_string(manifest.as_json().decode()) + b"}"
    records.write_path("abcd", content=content, _sync=True)
    assert orjson.loads(records.read_path("abcd", _sync=True)) == orjson.loads(content)
    path = Path(store.full(shard.path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(FileNotFoundError):
        records.read_path("abcd")
    path.write_bytes(whole)
    assert orjson.loads(records.read_path("abcd")) == orjson.loads(content)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        records.read_path("abcd")


def _json_string(text: str) -> bytes:
    import json

    return json.dumps(text).encode()


def test_a_stage_that_loses_a_record_is_caught(tmp_path: Path) -> None:
    job = Job(stage="length", label="x", store=str(tmp_path), config={})
    with pytest.raises(AccountError, match="3 records in, 2 accounted for"):
        run_job(_stage(Outcome(Counts(received=3, kept=1, dropped={"short": 1}))), job)
    with pytest.raises(AccountError, match="0 quarantined records listed"):
        run_job(_stage(Outcome(Counts(received=1, quarantined=1))), job)


def test_quarantine_is_written_beside_the_data(tmp_path: Path) -> None:
    job = Job(stage="length", label="x", store=str(tmp_path), config={})
    entry = QuarantineEntry(source="a.jsonl", line=4, reason="not JSON", excerpt="{")
    manifest = run_job(_stage(Outcome(Counts(received=1, quarantined=1), quarantine=[entry])), job)
    assert manifest.quarantine is not None
    (row,) = Store(str(tmp_path)).read_shard(manifest.quarantine).to_pylist()
    assert (row["source"], row["line"], row["reason"], row["stage"]) == ("a.jsonl", 4, "not JSON", "length")


def test_keys_change_with_everything_that_changes_a_result_and_nothing_else(tmp_path: Path) -> None:
    def job(**changes: object) -> Job:
        base = {
            "stage": "length",
            "label": "x",
            "store": "s",
            "config": {"a": 1, "b": 2},
            "environment": {"device": "cpu"},
        }
        return Job.from_dict({**base, **changes})

    stage = _stage(Outcome(Counts()))
    key = stage.key(job())
    assert stage.key(job(config={"b": 2, "a": 1})) == key
    assert stage.key(job(label="y", store="t", environment={"device": "cuda"})) == key
    shard = Shard(key="k", path="p", bytes=1, rows=1)
    others = [
        stage.key(job(config={"a": 1, "b": 3})),
        stage.key(job(inputs={"documents": [shard]})),
        stage.key(job(identity=["digest"])),
        stage.key(job(source={"uri": "u", "size": 1, "version": "v"})),
        Stage(name="length", version="2", compute=stage.compute).key(job()),
        Stage(name="other", version="1", compute=stage.compute).key(job()),
    ]
    assert len({key, *others}) == 7
    assert stage_key("length", "1", {"a": 1, "b": 2}, []) == key


def test_nothing_is_left_of_writes_that_a_process_ends_in(tmp_path: Path) -> None:
    """Threads go on writing while the process ends; what they begin meanwhile must not stay either."""
    program = f"""
import contextlib, os, threading, time
from ladm.tasks.storage.files import remove_unfinished
from ladm.tasks.storage.store import Store
store = Store({str(tmp_path / "store")!r})
def write(thread):
    for number in range(10**9):
        with contextlib.suppress(FileNotFoundError), store.writing(f"{{thread}}/{{number}}"):
            time.sleep(0.01)
for thread in range(4):
    threading.Thread(target=write, args=(thread,), daemon=True).start()
time.sleep(0.2)
remove_unfinished()
time.sleep(0.2)  # the message to the user takes a moment, too
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(files) > 4
    assert not [path for path in files if path.suffix == ".tmp"]
