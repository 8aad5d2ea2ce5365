"""How many requests a run makes of an S3 server where nothing changed: no more for many source files than for few."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from conftest import Corpus
from test_s3 import BUCKET, SECRET, reaching, server

from ladm.flows.config import load_config
from ladm.flows.console import Console
from ladm.flows.dag.crew import Crew
from ladm.flows.dag.doing import do_stages, do_without_work, publish_what_there_is
from ladm.flows.dag.preflight import preflight
from ladm.flows.dag.stages import STAGES, TABLE
from ladm.flows.forecast.by_hand import Finished
from ladm.flows.runs.record import RunRecord
from ladm.tasks.job import Job, Stage
from ladm.tasks.manifest import Counts, Manifest
from ladm.tasks.schema import QUARANTINE
from ladm.tasks.stage import StoreRecords
from ladm.tasks.storage import store as store_module
from ladm.tasks.storage.store import DamagedFileError, Store

__all__ = ["server"]  # a fixture

REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


class Counting:
    """A way to a server that notes what is asked of it."""

    def __init__(self, port: int) -> None:
        self.asked: list[tuple[str, str]] = []
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def beyond_listings(self) -> Counter[str]:
        """What was asked, less the listings, with names of files in the place of their keys."""
        rest = [f"{method} {url}" for method, url in self.asked if "list-type=" not in url]
        return Counter(
            re.sub(r"[0-9a-f]{64}|\b[0-9a-f]{2}\b|\d{8}T\d{6}-\w+|\d{3}(?=\.jsonl)", "…", one) for one in rest
        )

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listening.accept()
                there = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._pass, args=(here, there, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(there, here, False), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while block := one.recv(2**16):
                if asks:
                    self.asked += [(found[1].decode(), found[2].decode()) for found in REQUEST.finditer(block)]
                other.sendall(block)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def counting(server: dict[str, str], tmp_path: Path) -> Iterator[Counting]:
    """The server reached by a way that counts."""
    way = Counting(int(server["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]))
    with reaching({**server, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{way.port}"}, tmp_path / "none"):
        yield way
    way.close()


class MakingUp:
    """A runner that says of each job that it was done, and writes what would be there: a file and a quarantine."""

    workers = models = 1
    same_process = True

    def __init__(self, store: Store) -> None:
        self.store = store

    def submit(self, stage: Stage, job: Job, *, holds_model: bool) -> Finished:
        folder = next(row.stored_in for row in TABLE if row.stage.name == stage.name)
        key, kept = stage.key(job), sum(shard.rows for shard in next(iter(job.inputs.values()), [])) or 1
        shard = self.store.write_file(folder, key, "parquet", b"0").replaced(rows=kept)
        quarantine = None
        if stage.name == "ingest":
            row = {"stage": "ingest", "source": key, "line": 2, "reason": "no record", "excerpt": "", "records": 1}
            quarantine = self.store.write_shard("quarantine", key, pa.Table.from_pylist([row], QUARANTINE))
        counts = Counts(received=kept + bool(quarantine), kept=kept, quarantined=int(bool(quarantine)))
        measures = {"windows": 1} if stage.name == "score" else {}
        manifest = Manifest(
            stage=stage.name, key=key, label=job.label, shards=[shard], quarantine=quarantine, counts=counts,
            measures=measures,
        )  # fmt: skip
        StoreRecords(uri=self.store.uri).write_manifest(manifest)
        return Finished(manifest.as_dict())


def warm(name: str, files: int, corpus: Corpus, counting: Counting) -> Counter[str]:
    """What a run asks that finds everything done: five jobs of each file, each of which quarantined something."""
    fs = s3fs.S3FileSystem(key="curator", secret=SECRET, endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for number in range(files):
        fs.pipe_file(f"{BUCKET}/{name}/raw/{number:03d}.jsonl", json.dumps({"text": "a document"}).encode())
    given = [*corpus.settings, f"sources=s3://{BUCKET}/{name}/raw", "ingest.pack_bytes=0"]
    config = load_config(None, given, f"s3://{BUCKET}/{name}/store")
    store = Store(config.store)
    record = RunRecord(preflight(config))
    crew = Crew(MakingUp(store), STAGES)  # type: ignore[arg-type]  # they stand for Prefect's tasks
    do_stages(store, record, Console.silent(), lambda: crew)
    publish_what_there_is(record, Console.silent())
    assert (record.status, record.failures) == ("completed", [])
    store_module._checked.clear()  # as in another process
    counting.asked.clear()
    again = do_without_work(preflight(config), Console.silent())
    assert again is not None
    assert {done.cached for done in again.done} == {True}
    assert len(again.done) == len(record.done) >= 5 * files
    content = store.read_bytes(f"runs/{again.run_id}/quarantine.parquet")
    assert len(pq.read_table(pa.BufferReader(content))) == files
    return counting.beyond_listings()


def test_requests_do_not_grow_with_the_source_files(corpus: Corpus, counting: Counting) -> None:
    """Every file has something in quarantine, which each run tells of, and checks before."""
    few, many = warm("few", 6, corpus, counting), warm("many", 26, corpus, counting)
    assert sum(many.values()) <= sum(few.values()) + 0.01 * 20, many - few
    assert not [one for one in many if "/store/quarantine/" in one]


def test_what_was_found_sound_is_read_again_where_it_changed(counting: Counting) -> None:
    store, keys = Store(f"s3://{BUCKET}/sound"), [f"{number:02x}{'0' * 62}" for number in range(12)]
    shards = [store.write_file("quarantine", key, "parquet", key.encode() * 10) for key in keys]
    store.check(shards)
    states = {shard.path: store.sound_state(shard) for shard in shards}
    assert all(states.values())

    def known_anew() -> Store:
        store_module._checked.clear()  # as in another process
        for shard in shards:
            store.take_as_sound(shard, states[shard.path] or "")
        return store

    counting.asked.clear()
    known_anew().check(shards)
    assert not counting.beyond_listings()
    store.write_bytes(shards[3].path, shards[3].key.encode()[::-1] * 10)  # as many bytes
    store.remove(shards[5].path)
    with pytest.raises(DamagedFileError) as found:
        known_anew().check(shards)
    assert sorted(found.value.paths) == [shards[3].path, shards[5].path]
