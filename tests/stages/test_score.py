"""How windows reach the model: read ahead of it, in full batches, and none that are not to be scored."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ladm.tasks.job import Job
from ladm.tasks.schema import DROP_LIST, WINDOWS
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.loaded_model import resolved_scorer
from ladm.tasks.scorers.window_batches import batches_to_score, window_length, windows_a_batch
from ladm.tasks.stages.score import score_key_config
from ladm.tasks.storage.read_ahead import one_ahead
from ladm.tasks.storage.store import Store, table_of


def test_the_next_batch_is_read_while_one_is_scored() -> None:
    asked_for = [threading.Event() for _ in range(4)]

    def reading() -> Iterator[int]:
        for number, asked in enumerate(asked_for):
            asked.set()
            yield number

    for number in one_ahead(reading()):
        # "scoring" this one, and nobody has asked for the next: it is read all the same, but none beyond it
        if number < 3:
            assert asked_for[number + 1].wait(30), f"batch {number + 1} is read only when it is asked for"
        if number < 2:
            assert not asked_for[number + 2].wait(0.05)


def test_what_goes_wrong_in_reading_is_raised_in_its_place() -> None:
    def reading() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    taken = one_ahead(reading())
    assert next(taken) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(taken)


@pytest.mark.parametrize(("at_once", "read"), [(1, 4), (3, 6), (4, 4), (21, 21), (64, 64)])
def test_reads_whole_batches(at_once: int, read: int) -> None:
    assert windows_a_batch(at_once) == read


@pytest.mark.parametrize("left_out", [[], [0], [1, 2, 3, 4], [3, 9], list(range(10))])
def test_batches_are_full_whatever_is_left_out(tmp_path: Path, left_out: list[int]) -> None:
    store = Store(str(tmp_path))
    windows = [
        {
            "window_id": f"{number}:0",
            "doc_id": str(number),
            "domain": "x",
            "window_index": 0,
            "input_ids": [number] * 8,
            "n_tokens": 8,
            "char_start": 0,
            "char_end": 8,
            "doc_tokens": 8,
            "doc_tokens_exact": True,
        }
        for number in range(10)
    ]
    rows = {name: [window[name] for window in windows] for name in WINDOWS.names}
    shard = store.write_shard("tokenize", "windows", table_of(rows, WINDOWS))
    drops = store.write_shard("dedup", "drops", pa.table({"doc_id": [str(n) for n in left_out]}, schema=DROP_LIST))
    inputs = {"windows": [shard], "drops": [drops]}
    job = Job(stage="score", label="x", store=store.uri, config={}, inputs=inputs)
    batches = list(batches_to_score(store, job, 3))
    kept = [number for number in range(10) if number not in left_out]
    assert [batch.num_rows for batch, _ in batches] == [3] * (len(kept) // 3) + [len(kept) % 3] * (len(kept) % 3 > 0)
    assert [doc_id for batch, _ in batches for doc_id in batch["doc_id"].to_pylist()] == [str(n) for n in kept]
    for batch, ids_BL in batches:
        assert ids_BL.dtype == np.int64
        assert ids_BL.tolist() == batch["input_ids"].to_pylist()
    assert window_length(store, shard) == 8


@pytest.mark.parametrize(
    ("platform", "mps", "driver", "device", "dtype"),
    [
        ("darwin", True, False, "mps", "float32"),
        ("darwin", False, False, "cpu", "float32"),
        ("linux", True, False, "cpu", "float32"),
        ("linux", False, True, "cuda", "bfloat16"),
    ],
)
def test_what_auto_means(
    platform: str, mps: bool, driver: bool, device: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    import torch

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(Path, "exists", lambda path: driver)
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "2.11.0+cu130")
    found = resolved_scorer(LadmConfig())
    assert (found.device, found.dtype) == (device, dtype)
    key = score_key_config(LadmConfig())
    assert key == score_key_config(LadmConfig(device="cpu", dtype=dtype))  # where it runs does not count
    assert resolved_scorer(LadmConfig(device="cpu")).device == "cpu"
