"""The records that ladm writes for itself: closed, checked where they are read, and small where many are held."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import Any

import pytest

from ladm.tasks.job import Job
from ladm.tasks.manifest import Counts, Manifest, Part, Shard, SourceFile, content_key

MANIFESTS = 2_000


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def manifest(number: int) -> Manifest:
    shard = Shard(key=key(number), path=f"score/{key(number)}.parquet", bytes=1, rows=1, sha256=key(-number))
    counts = Counts(received=3, kept=1, dropped={"too short": 2})
    return Manifest(stage="score", key=key(number), label="a", shards=[shard], counts=counts, measures={"windows": 1})


def test_a_manifest_is_the_same_after_json_and_dictionaries() -> None:
    one = manifest(1)
    assert Manifest.from_json(one.as_json()) == Manifest.from_dict(one.as_dict()) == one
    assert one.as_dict().keys().isdisjoint({"packed", "parts"})
    parted = one.replaced(parts=[Part(begin=0, end=1, bytes=1)])
    assert Manifest.from_json(parted.as_json()) == parted != one


@pytest.mark.parametrize(
    "change",
    [{"more": 1}, {"stage": None}, {"shards": [{"key": "a"}]}, {"counts": {"received": "3"}}, {"shards": [{"x": 1}]}],
)
def test_what_is_of_another_form_is_a_value_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Manifest"):
        Manifest.from_dict(manifest(1).as_dict() | change)
    with pytest.raises(ValueError, match="Manifest"):
        Manifest.from_json(b"\xff{")


def test_they_do_not_change() -> None:
    with pytest.raises(AttributeError):
        manifest(1).stage = "rank"  # type: ignore[misc]


def test_keys_are_those_of_earlier_versions() -> None:
    """Of files and parts as Pydantic's models gave them; another key would do all work of a store again."""
    file = SourceFile(uri="/a.jsonl", size=3, version="7")
    part = Part(begin=1, end=2, bytes=3)
    keys = [content_key(one) for one in (file.identity(), file.replaced(name="b").identity(), part.as_dict())]
    assert keys == [
        "0335e203dbe98c005db6f1a2c75a672fd1059ec68820feb89b10d4bd22f67a33",
        "f13dcaf6d2d492992981059177e19209f14a03c78abdea21307ab916c7e098c2",
        "28f89bca55dd7a3e3916982785b300df56771026877b16c9fab181033b058719",
    ]


def test_a_job_goes_to_another_process_and_back() -> None:
    job = Job(stage="score", label="a", store="s", config={"layers": (1, 2)}, inputs={"windows": manifest(1).shards})
    assert Job.from_dict(job.as_dict()) == job
    assert Job.from_json(job.as_json()).one("windows") == job.one("windows")


def test_a_manifest_that_is_held_is_equal_and_small() -> None:
    written = [manifest(number).as_json() for number in range(MANIFESTS)]
    tracemalloc.start()
    try:
        held = [Manifest.from_json(content).compact() for content in written]
        each = tracemalloc.get_traced_memory()[0] / MANIFESTS
    finally:
        tracemalloc.stop()
    assert each < 1_500  # bytes; 3,800 as Pydantic's models
    assert held == [manifest(number) for number in range(MANIFESTS)]
    assert [one.as_json() for one in held] == written
