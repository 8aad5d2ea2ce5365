"""Damage to the store: found by size or checksum when it matters, made again in the same run, never used."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.dag.lineage import Request
from ladm.flows.dag.repair import MOST_TRIES, Repairs
from ladm.tasks.errors import ModelError
from ladm.tasks.job import Job
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.models.resolve import check_content, resolve_model
from ladm.tasks.stage import sealed, unsealed
from ladm.tasks.storage.store import DamagedFileError, Store

Cli = Callable[..., Answer]
TABLE = pa.table({"n": pa.array(range(1000), type=pa.int64())})


def flip_a_byte(path: Path, at: float = 0.5) -> None:
    """Damage a file as a failing disk would: neither its size nor its time tells."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0x10
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def data_files(store: Path, *folders: str) -> dict[str, bytes]:
    paths = (path for folder in folders for path in (store / folder).rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer", "deleted"])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    store = Store(str(tmp_path))
    whole, other = store.write_shard("score", "abcd", TABLE), store.write_shard("score", "ef01", TABLE)
    store.check([whole, other])
    path = Path(store.full(whole.path))
    match damage:
        case "flipped":
            flip_a_byte(path)
        case "truncated":
            path.write_bytes(path.read_bytes()[:-1])
        case "longer":
            path.write_bytes(path.read_bytes() + b"\0")
        case "deleted":
            path.unlink()
    with pytest.raises(DamagedFileError) as found:
        store.check([whole, other])
    assert found.value.paths == [whole.path]
    assert path.exists() == (damage != "deleted")
    store.check([other])


def test_a_damaged_object_is_named_and_left_alone() -> None:
    """The same where there are no files but objects."""
    store = Store("memory://damaged")
    one, two, three = (store.write_shard("score", key, TABLE) for key in ("abcd", "ef01", "0123"))
    store.check([one, two, three])
    content = bytearray(store.read_bytes(one.path))
    content[100] ^= 1
    store.write_bytes(one.path, bytes(content))
    store.remove(two.path)
    with pytest.raises(DamagedFileError) as found:
        store.check([one, two, three])
    assert found.value.paths == [one.path, two.path]
    assert store.size(one.path) == one.bytes
    store.check([three])


def test_every_byte_counts(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    shard = store.write_shard("score", "abcd", pa.table({"n": [1]}))
    path = Path(store.full(shard.path))
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content)
        store.check([shard])
        flip_a_byte(path, place / len(content))
        with pytest.raises(DamagedFileError):
            store.check([shard])


def test_a_manifest_without_checksums_counts_by_size(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    now = store.write_shard("score", "abcd", TABLE)
    before = Shard.from_dict({"key": now.key, "path": now.path, "bytes": now.bytes, "rows": now.rows})
    flip_a_byte(Path(store.full(before.path)))
    store.check([before])
    with pytest.raises(DamagedFileError):
        store.check([before.replaced(bytes=now.bytes + 1)])


def test_a_record_vouches_for_itself() -> None:
    record = b'{"metadata": {"b": 1, "a": null}, "result": "{\\"stage\\": \\"score\\"}"}'
    written = sealed(record)
    assert json.loads(unsealed(written)) == json.loads(record)
    assert json.loads(unsealed(record)) == json.loads(record)  # of a version that had no checksums yet
    for place in range(len(written)):
        damaged = bytearray(written)
        damaged[place] ^= 1
        with pytest.raises(ValueError):  # noqa: PT011  (orjson's, or ours)
            unsealed(bytes(damaged))


def test_all_files_that_a_run_reads_are_made_again(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    (corpus.folder / "poems.jsonl").open("a").write("not JSON\n")
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store)).code == 0
    folders = ("ingest", "length", "tokenize", "score", "rank", "export", "quarantine")
    before = data_files(store, *folders)
    assert {path.split("/")[0] for path in before} == set(folders)
    assert len(before) == 2 * 4 + 2 + 3 + 1

    # Scoring anew reads windows; to make those again takes documents, and so on back to the sources.
    documents = ("ingest", "length", "tokenize")
    for path in data_files(store, *documents):
        flip_a_byte(store / path)
    again = ladm(*run_arguments(corpus, store, "scorer.span=8"))
    assert again.code == 0, again.err
    assert sorted(again.record["made_again"]) == sorted(path for path in before if path.split("/")[0] in documents)
    assert [again.record["stages"][stage]["run"] for stage in (*documents, "score")] == [2, 2, 2, 2]
    assert data_files(store, *documents).items() <= before.items()
    assert again.err.count("it is made again") >= 3

    # Nothing has to be computed: but what is published is looked at, and what is needed for that.
    published = ("score", "rank", "export", "quarantine")
    for path in before:
        if path.split("/")[0] in published:
            flip_a_byte(store / path)
    third = ladm(*run_arguments(corpus, store))
    assert third.code == 0, third.err
    assert sorted(third.record["made_again"]) == sorted(path for path in before if path.split("/")[0] in published)
    assert (third.record["windows_scored"], third.record["stages"]["tokenize"]["run"]) == (7, 0)
    after = data_files(store, *folders)
    assert all(after[path] == content for path, content in before.items())
    folder = store / "runs" / third.record["run_id"]
    assert (folder / "ranking.parquet").read_bytes() in before.values()
    assert (folder / "export/jsonl.zst/train-00000-of-00001.jsonl.zst").read_bytes() in before.values()

    # Damaged records are as none.
    for path in store.glob("records/*/*.json"):
        flip_a_byte(path)
    anew = ladm(*run_arguments(corpus, store)).record
    assert {stage["cached"] for stage in anew["stages"].values()} == {0}
    assert data_files(store, *folders) == after


def test_an_export_of_several_parts_is_vouched_for_after_it_was_mended(
    tmp_path: Path, corpus: Corpus, ladm: Cli
) -> None:
    store = tmp_path / "store"
    arguments = run_arguments(
        corpus, store, "select.budget_tokens=1000000", "export=[{format: parquet, part_bytes: 3000}]"
    )
    files: list[str] = []
    for run in range(4):
        if run:
            flip_a_byte(store / files[run])
        answer = ladm(*arguments)
        assert answer.code == 0, answer.err
        named = [file for job in answer.record["shards"] if job["stage"] == "export" for file in job["files"]]
        assert all(file["sha256"] for file in named)
        assert answer.record["made_again"] == files[run : run + 1]
        files = [file["path"] for file in named]
        assert len(files) > 4


def test_a_disk_that_damages_everything_ends_the_run(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    writing = Store.writing

    def damaging(self: Store, path: str) -> Iterator[object]:
        with writing(self, path) as file:
            yield file
        if path.startswith("tokenize/"):
            flip_a_byte(Path(self.full(path)))

    import contextlib

    monkeypatch.setattr(Store, "writing", contextlib.contextmanager(damaging))
    answer = ladm(*run_arguments(corpus, store))
    assert answer.code == 1
    assert {failure["stage"] for failure in answer.record["failures"]} == {"score", "measure"}
    assert all("damaged or missing in the store: tokenize/" in one["error"] for one in answer.record["failures"])
    assert not (store / "latest").exists()
    monkeypatch.undo()
    assert ladm(*run_arguments(corpus, store)).code == 0


# -- who makes what again ------------------------------------------------------------------------------------------


def job_and_manifest(name: str, inputs: list[Shard], *written: str) -> tuple[Request, Manifest]:
    shards = [Shard(key=path, path=path, bytes=1, rows=1, sha256=f"first {path}") for path in written]
    job = Job(stage="length", label=name, store="s", config={}, inputs={"documents": inputs})
    return Request("length", "source", job), Manifest(stage="length", key=name, label=name, shards=shards)


def with_input(request: Request, shard: Shard) -> Request:
    job = request.job.replaced(inputs={"documents": [shard]})
    return dataclasses.replace(request, job=job)


def test_a_waiting_job_is_done_when_all_its_inputs_are_there_again(tmp_path: Path) -> None:
    repairs = Repairs(Store(str(tmp_path)))
    one, one_made = job_and_manifest("one", [], "a", "b")
    two, two_made = job_and_manifest("two", [], "c")
    for request, manifest in ((one, one_made), (two, two_made)):
        assert repairs.finished(manifest, request) == []
    last, _ = job_and_manifest("last", [*one_made.shards, *two_made.shards])
    other, _ = job_and_manifest("other", one_made.shards)
    assert repairs.order(["a", "c"], last) == [one, two]
    assert repairs.order(["b"], other) == []  # is being made already
    assert repairs.is_under_way("one")
    remade = one_made.replaced(shards=[shard.replaced(sha256="second") for shard in one_made.shards])
    (ready,) = repairs.finished(remade, one)
    assert ready.job.label == "other"
    assert [shard.sha256 for shard in ready.job.shards()] == ["second", "second"]
    (ready,) = repairs.finished(two_made, two)
    assert ready.job.label == "last"
    assert [shard.sha256 for shard in ready.job.shards()] == ["second", "second", "first c"]
    assert not repairs.is_under_way("one")


def test_what_cannot_be_mended(tmp_path: Path) -> None:
    repairs = Repairs(Store(str(tmp_path)))
    job, manifest = job_and_manifest("one", [], "a")
    assert repairs.order(["a"]) is None  # made by nobody
    for _ in range(MOST_TRIES):
        repairs.finished(manifest, job)
        assert repairs.order(["a"]) == [job]
    repairs.finished(manifest, job)
    assert repairs.order(["a"]) is None


def test_a_job_that_tells_late_of_damage_long_mended_is_only_done_again(tmp_path: Path) -> None:
    """Several exports read the same files at once; the damage that each of them finds is one and the same."""
    store = Store(str(tmp_path))
    repairs = Repairs(store)
    shard = store.write_shard("length", "ab", TABLE)
    job, _ = job_and_manifest("one", [])
    late = with_input(job, shard.replaced(sha256="as it was"))
    assert repairs.made_meanwhile([shard.path], late) is None  # made by nobody
    repairs.finished(Manifest(stage="length", key="one", label="one", shards=[shard]), job)
    assert repairs.made_meanwhile([shard.path], late) == with_input(job, shard)
    flip_a_byte(Path(store.full(shard.path)))  # its size is right
    assert repairs.made_meanwhile([shard.path], late) is None
    assert repairs.order([shard.path], late) == [job]
    assert store.size(shard.path) is None


def test_nothing_that_was_made_again_is_deleted(tmp_path: Path) -> None:
    """A job that tells late of two damaged files, one of which is mended by now, has only the other made again."""
    store = Store(str(tmp_path))
    repairs = Repairs(store)
    jobs = {}
    for name in ("one", "two", "three"):
        shard = store.write_shard("length", name, TABLE)
        jobs[name] = job_and_manifest(name, [])[0], Manifest(stage="length", key=name, label=name, shards=[shard])
        repairs.finished(jobs[name][1], jobs[name][0])
    paths = [manifest.shards[0].path for _, manifest in jobs.values()]
    flip_a_byte(Path(store.full(paths[1])))
    store.remove(paths[2])
    assert repairs.order(paths[2:]) == [jobs["three"][0]]
    store.write_shard("length", "three", TABLE)  # there, but the job has not told of it yet
    assert repairs.order(paths) == [jobs["two"][0]]
    assert [store.size(path) is None for path in paths] == [False, True, False]


def test_a_job_to_which_sound_files_look_damaged_does_not_go_on_for_ever(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    repairs = Repairs(store)
    shard = store.write_shard("length", "ab", TABLE)
    job, made = job_and_manifest("one", [])[0], Manifest(stage="length", key="one", label="one", shards=[shard])
    repairs.finished(made, job)
    reader = with_input(job, shard)
    assert [repairs.made_meanwhile([shard.path], reader) for _ in range(MOST_TRIES)] == [reader] * MOST_TRIES
    for _ in range(MOST_TRIES):
        assert repairs.made_meanwhile([shard.path], reader) is None
        assert repairs.order([shard.path], reader) == [job]
        assert store.size(shard.path) is None
        store.write_shard("length", "ab", TABLE)
        assert repairs.finished(made, job) == [reader]
    assert repairs.order([shard.path], reader) is None


# -- the model -----------------------------------------------------------------------------------------------------


def test_a_model_damaged_behind_the_memory_of_its_digest(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files are hashed by size and time from run to run; when a model is loaded, by what they hold."""
    import torch
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "cache"))
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = model / "model.safetensors"
    save_file({**load_file(weights), "ballast": torch.zeros(2**19)}, weights, metadata={"format": "pt"})
    sound = resolve_model(str(model))
    check_content(sound)
    flip_a_byte(weights)
    assert resolve_model(str(model)).digest == sound.digest
    with pytest.raises(ModelError, match="are damaged: they do not hold what they held"):
        check_content(sound)
