"""What a store has, looked through once: the index saves reading records, and is never trusted over them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.dag.inventory import INDEX, Inventory
from ladm.flows.dag.stages import FOLDERS
from ladm.flows.orchestration.environment import users_server_is_set
from ladm.tasks.manifest import Manifest, record_path
from ladm.tasks.stage import StoreRecords
from ladm.tasks.storage import store as store_module
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
TABLE = pa.table({"n": pa.array(range(100))})
KEYS = [f"{number:02x}{'0' * 62}" for number in range(6)]


def look(store: Store) -> Inventory:
    return Inventory(store, (*FOLDERS, "quarantine"))


@pytest.fixture(params=["local", "memory"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    """Six jobs of a store, each with a data file, and an index of five of them."""
    made = Store(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}")
    for number, key in enumerate(KEYS):
        if number == 5:
            inventory = look(made)
            assert all(inventory.find(key) for key in KEYS[:5])
            inventory.write_index()
        shard = made.write_shard("score", key, TABLE)
        StoreRecords(uri=made.uri).write_manifest(Manifest(stage="score", key=key, label=str(number), shards=[shard]))
    return made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The records that are read one by one."""
    found: list[str] = []
    one, many = Store.read_bytes, Store.read_many

    def reading(self: Store, path: str, end: int | None = None) -> bytes:
        found.append(path)
        return one(self, path, end)

    def reading_many(self: Store, paths: list[str]) -> list[bytes | None]:
        found.extend(paths)
        return many(self, paths)

    monkeypatch.setattr(Store, "read_bytes", reading)
    monkeypatch.setattr(Store, "read_many", reading_many)
    return found


def labels(inventory: Inventory) -> list[str | None]:
    return [(found := inventory.find(key)) and found.label for key in KEYS]


def test_what_the_index_has_is_not_read_again(store: Store, read: list[str]) -> None:
    inventory = look(store)
    assert labels(inventory) == ["0", "1", "2", "3", "4", "5"]
    assert read == [INDEX, record_path(KEYS[5])]
    inventory.write_index()
    read.clear()
    assert labels(look(store)) == ["0", "1", "2", "3", "4", "5"]
    assert read == [INDEX]
    assert inventory.find("ab" * 32) is None


@pytest.mark.parametrize("index", ["missing", "cut", "flipped", "no parquet", "other columns", "wrong manifests"])
def test_an_index_that_is_not_whole_costs_reading_and_nothing_else(store: Store, read: list[str], index: str) -> None:
    content = store.read_bytes(INDEX)
    match index:
        case "missing":
            store.remove(INDEX)
        case "cut":
            store.write_bytes(INDEX, content[:-20])
        case "flipped":
            middle = bytearray(content)
            middle[len(content) // 3] ^= 8
            store.write_bytes(INDEX, bytes(middle))
        case "no parquet":
            store.write_bytes(INDEX, b"not Parquet")
        case "other columns":
            with store.writing(INDEX) as file:
                pq.write_table(TABLE, file)
        case "wrong manifests":
            with store.writing(INDEX) as file:
                table = pq.read_table(pa.BufferReader(content))
                pq.write_table(table.set_column(2, "manifest", pa.array([b"{}"] * 5, pa.large_binary())), file)
    read.clear()
    assert labels(look(store)) == ["0", "1", "2", "3", "4", "5"]
    assert set(read) > {record_path(KEYS[5])}


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "other"])
def test_the_record_is_the_truth(store: Store, damage: str) -> None:
    path = record_path(KEYS[2])
    content = bytearray(store.read_bytes(path))
    expected: str | None = None
    match damage:
        case "flipped":
            content[len(content) // 2] ^= 1
            store.write_bytes(path, bytes(content))
            if store.local:  # as a failing disk would: not even its time tells
                status = Path(store.full(record_path(KEYS[1]))).stat()
                os.utime(store.full(path), ns=(status.st_atime_ns, status.st_mtime_ns))
        case "cut":
            store.write_bytes(path, bytes(content[:-5]))
        case "gone":
            store.remove(path)
        case "other":
            shard = store.write_shard("score", KEYS[2], TABLE.slice(5))
            manifest = Manifest(stage="score", key=KEYS[2], label="anew", shards=[shard])
            StoreRecords(uri=store.uri).write_manifest(manifest)
            expected = "anew"
    inventory = look(store)
    assert labels(inventory) == ["0", "1", expected, "3", "4", "5"]
    inventory.write_index()
    assert labels(look(store)) == ["0", "1", expected, "3", "4", "5"]


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_job_whose_data_is_not_there_does_not_count(store: Store, damage: str) -> None:
    path = store.shard_path("score", KEYS[0])
    content = store.read_bytes(path)
    store.remove(path)
    if damage == "cut":
        store.write_bytes(path, content[:-1])
    assert labels(look(store)) == [None, "1", "2", "3", "4", "5"]


def test_what_is_noted_meanwhile(store: Store) -> None:
    inventory = look(store)
    key = "77" * 32
    StoreRecords(uri=store.uri).write_manifest(Manifest(stage="score", key=key, label="with another"))
    assert inventory.find(key) is None
    inventory.look_again(key)
    found = inventory.find(key)
    assert found
    assert found.label == "with another"
    inventory.forget(KEYS[0])
    assert inventory.find(KEYS[0]) is None
    inventory.write_index()
    table = pq.read_table(pa.BufferReader(store.read_bytes(INDEX)))
    assert key in table["key"].to_pylist()
    assert KEYS[0] not in table["key"].to_pylist()


def test_a_run_with_nothing_left_needs_no_prefect(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    """Neither its server nor its client; and what is cached is told as such."""
    store = tmp_path / "store"
    first = ladm(*run_arguments(corpus, store)).record
    script = (
        "import json, sys; from ladm.flows.cli import main; code = main(sys.argv[1:]);"
        "print(json.dumps('prefect' in sys.modules)); sys.exit(code)"
    )

    def again(*more: str) -> tuple[dict[str, Any], bool, str]:
        command = [sys.executable, "-c", script, *run_arguments(corpus, store, *more)]
        environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        record, loaded = done.stdout.splitlines()
        return json.loads(record), json.loads(loaded), done.stderr

    record, loaded, told = again()
    assert not loaded
    assert {stage: one["run"] for stage, one in record["stages"].items()} == dict.fromkeys(record["stages"], 0)
    assert {stage: one["cached"] for stage, one in record["stages"].items()} == {
        stage: one["run"] for stage, one in first["stages"].items()
    }
    assert told.count(" cached ") == sum(one["cached"] for one in record["stages"].values()) + 1  # the card
    assert (store / "latest").read_text() == record["run_id"]
    runs = len(list((store / "runs").iterdir()))
    # a damaged export is read by no job: it is found and made again, by Prefect
    (part,) = (store / "export").rglob("*.jsonl.zst")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(bytes(content))
    record, loaded, told = again()
    assert loaded
    assert record["made_again"]
    assert len(list((store / "runs").iterdir())) == runs + 1  # nothing is left of the try without Prefect


def test_whether_a_server_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_API_URL", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert not users_server_is_set()
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert not users_server_is_set()
    (tmp_path / "pyproject.toml").write_text('[tool.prefect.api]\nurl = "http://x/api"\n')
    assert users_server_is_set()
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "profiles.toml").write_text('[profiles.x]\nPREFECT_API_URL = "http://x/api"\n')
    assert users_server_is_set()
    (tmp_path / "home" / "profiles.toml").unlink()
    monkeypatch.setenv("PREFECT_API_URL", "http://x/api")
    assert users_server_is_set()


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_what_was_found_sound_is_told_by_the_index_of_an_object_store(tmp_path: Path, kind: str) -> None:
    """As soon as it was checked, if only in a later run; on a disk, bytes may change and nothing else."""
    store = Store(str(tmp_path / "store") if kind == "local" else f"memory://{tmp_path.name}")
    bad = store.write_file("quarantine", KEYS[0], "parquet", b"bad")
    StoreRecords(uri=store.uri).write_manifest(Manifest(stage="ingest", key=KEYS[0], label="0", quarantine=bad))

    def in_another_process(check: bool) -> str | None:
        store_module._checked.clear()
        inventory = look(store)
        assert inventory.find(KEYS[0])
        told = store.sound_state(bad)
        if check:
            store.check([bad])
        inventory.write_index()
        return told

    assert [in_another_process(check) is not None for check in (False, True)] == [False, False]
    assert (in_another_process(check=False) is not None) == (kind == "memory")
    table = pq.read_table(pa.BufferReader(store.read_bytes(INDEX)))
    with store.writing(INDEX) as file:  # as it was before states were kept
        pq.write_table(table.drop_columns(["sound"]), file)
    assert in_another_process(check=True) is None
    assert (in_another_process(check=False) is not None) == (kind == "memory")
