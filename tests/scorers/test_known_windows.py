"""What an earlier job found of windows that are there again: taken over by their tokens, in the order of the shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from ladm.tasks.job import Job
from ladm.tasks.manifest import Shard
from ladm.tasks.schema import DROP_LIST, MEASURED, WINDOWS
from ladm.tasks.scorers.known_windows import EARLIER, REUSED, Earlier, KnownWindows
from ladm.tasks.scorers.window_batches import batches_to_score
from ladm.tasks.storage.store import Store, table_of

FOUND = pa.schema([*MEASURED, pa.field("value", pa.float64())])
TEXTS = {"a": 1, "b": 2, "c": 3, "d": 4}
"""Document → the token that its window repeats."""


def windows_of(store: Store, key: str, texts: Mapping[str, int]) -> Shard:
    rows = [
        {
            "window_id": f"{doc_id}:0",
            "doc_id": doc_id,
            "domain": "x",
            "window_index": 0,
            "input_ids": [token] * 8,
            "n_tokens": 8,
            "char_start": 0,
            "char_end": 8,
            "doc_tokens": 8,
            "doc_tokens_exact": True,
        }
        for doc_id, token in texts.items()
    ]
    return store.write_shard("tokenize", key, table_of({n: [row[n] for row in rows] for n in WINDOWS.names}, WINDOWS))


def found_of(store: Store, key: str, texts: Mapping[str, int], offset: float = 0.5) -> Shard:
    rows = {"window_id": [f"{one}:0" for one in texts], "doc_id": list(texts)}
    return store.write_shard("measure", key, table_of({**rows, "value": [n + offset for n in texts.values()]}, FOUND))


def job_over(store: Store, texts: Mapping[str, int], earlier: Sequence[Earlier], left_out: Sequence[str] = ()) -> Job:
    inputs = {"windows": [windows_of(store, "now", texts)]}
    if left_out:
        inputs["drops"] = [store.write_shard("dedup", "drops", pa.table({"doc_id": left_out}, schema=DROP_LIST))]
    environment = {EARLIER: [one.as_dict() for one in earlier]}
    return Job(stage="score", label="x", store=store.uri, config={}, inputs=inputs, environment=environment)


def found_by(store: Store, job: Job, known: KnownWindows, key: str = "k") -> list[tuple[str, float]]:
    """What a job finds that does the rest by itself: what it finds of a window is 0.25 more than its token."""
    rows: dict[str, list[object]] = {"window_id": [], "doc_id": [], "value": []}
    for batch, ids_BL in batches_to_score(store, job, 2, known.ids):
        rows["window_id"] += batch["window_id"].to_pylist()
        rows["doc_id"] += batch["doc_id"].to_pylist()
        rows["value"] += [float(ids_L[0]) + 0.25 for ids_L in ids_BL]
    table = known.completed(key, table_of(rows, FOUND))
    assert table.schema == FOUND
    assert table["window_id"].to_pylist() == [f"{one}:0" for one in table["doc_id"].to_pylist()]
    return list(zip(table["doc_id"].to_pylist(), table["value"].to_pylist(), strict=True))


def test_only_what_has_the_same_tokens_is_taken_over_in_the_order_of_the_shard(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    earlier = Earlier(windows=windows_of(store, "w", TEXTS), made={"k": found_of(store, "m", TEXTS)})
    # b has another text, d is gone, e is new, and f has the text that c has
    job = job_over(store, {"f": 3, "e": 9, "b": 7, "c": 3, "a": 1}, [earlier])
    known = KnownWindows(store, job, ["k"])
    assert (known.ids, known.left, known.measures()) == ({"f:0", "c:0", "a:0"}, True, {REUSED: 3})
    assert found_by(store, job, known) == [("f", 3.5), ("e", 9.25), ("b", 7.25), ("c", 3.5), ("a", 1.5)]


def test_all_are_known_or_none(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    earlier = Earlier(windows=windows_of(store, "w", TEXTS), made={"k": found_of(store, "m", TEXTS)})
    known = KnownWindows(store, job_over(store, {"c": 3, "a": 1}, [earlier]), ["k"])
    assert (len(known), known.left) == (2, False)
    for texts, before in (({"c": 5}, [earlier]), (TEXTS, [])):
        known = KnownWindows(store, job_over(store, texts, before), ["k"])
        assert (len(known), known.left, known.measures()) == (0, True, {})
        new = table_of({"window_id": ["c:0"], "doc_id": ["c"], "value": [1.0]}, FOUND)
        assert known.completed("k", new) is new


def test_a_window_is_known_only_where_all_jobs_of_the_pass_found_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    without_b = {name: token for name, token in TEXTS.items() if name != "b"}  # as where it was quarantined
    made = {"k": found_of(store, "m", TEXTS), "other": found_of(store, "o", without_b, 0.75)}
    job = job_over(store, TEXTS, [Earlier(windows=windows_of(store, "w", TEXTS), made=made)])
    known = KnownWindows(store, job, ["k", "other"])
    assert known.ids == {"a:0", "c:0", "d:0"}
    assert found_by(store, job, known) == [("a", 1.5), ("b", 2.25), ("c", 3.5), ("d", 4.5)]
    assert found_by(store, job, known, "other") == [("a", 1.75), ("b", 2.25), ("c", 3.75), ("d", 4.75)]


def test_several_earlier_shards_and_what_is_left_out(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    parts = [{"a": 1, "b": 2}, {"c": 3, "d": 4}]
    earlier = [
        Earlier(windows=windows_of(store, f"w{n}", part), made={"k": found_of(store, f"m{n}", part)})
        for n, part in enumerate(parts)
    ]
    job = job_over(store, {**TEXTS, "e": 5}, earlier, left_out=["a", "d"])
    known = KnownWindows(store, job, ["k"])
    assert known.ids == {"b:0", "c:0"}
    assert found_by(store, job, known) == [("b", 2.5), ("c", 3.5), ("e", 5.25)]


@pytest.mark.parametrize("damage", ["gone", "changed"])
@pytest.mark.parametrize("which", ["windows", "found"])
def test_nothing_is_taken_from_a_damaged_file(tmp_path: Path, damage: str, which: str) -> None:
    store = Store(str(tmp_path))
    windows, found = windows_of(store, "w", TEXTS), found_of(store, "m", TEXTS)
    path = tmp_path / (windows if which == "windows" else found).path
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    job = job_over(store, TEXTS, [Earlier(windows=windows, made={"k": found})])
    known = KnownWindows(store, job, ["k"])
    assert (len(known), known.left) == (0, True)
    assert found_by(store, job, known) == [(name, token + 0.25) for name, token in TEXTS.items()]
