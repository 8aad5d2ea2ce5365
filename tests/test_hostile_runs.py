"""Bad input through the command line: nothing hangs, nothing is lost, and the good files beside it are unharmed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Answer, Corpus, run_arguments, write_jsonl
from test_hostile_files import EXPECTED, HOSTILE, hostile
from test_quarantine import rows_of

Cli = Callable[..., Answer]


def by_source(record: dict[str, Any], stage: str = "ingest") -> dict[str, dict[str, Any]]:
    return {Path(job["source"]).name: job for job in record["shards"] if job["stage"] == stage}


@hostile
def test_every_hostile_file_in_one_run(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    folder = shutil.copytree(HOSTILE, tmp_path / "hostile", symlinks=True)
    for name in ("README.md", "EXPECTED.tsv"):
        (folder / name).unlink()
    dangling = folder / "71_dangling_symlink.jsonl"
    dangling.unlink(missing_ok=True)
    dangling.symlink_to("nowhere")
    named_like_a_file = folder / "70_directory_named.jsonl"
    named_like_a_file.mkdir(exist_ok=True)
    write_jsonl(named_like_a_file / "inside.jsonl", "Inside", 5, [300])
    store = tmp_path / "store"
    answer = ladm(*run_arguments(corpus, store, f"sources=[{folder}, {corpus.folder}]"))
    assert answer.code == 0, answer.err
    assert "Traceback" not in answer.err
    record = answer.record
    jobs = by_source(record)
    expected = {**EXPECTED, dangling.name: "dangling symbolic link", "inside.jsonl": (1, 0)}
    assert set(jobs) == {*expected, "letters.jsonl", "poems.jsonl"}
    reasons = {
        Path(row["source"]).name: row["reason"]
        for row in rows_of(ladm, store, "select source, reason from quarantine where line is null")
    }
    for name, outcome in expected.items():
        job = jobs[name]
        assert job["in"] == job["kept"] + job["quarantined"], name
        if isinstance(outcome, str):
            assert (job["kept"], job["shards"]) == (0, []), name
            assert outcome in reasons[name]
        else:
            assert (job["kept"], job["quarantined"]) == outcome, name
            assert name not in reasons
    assert record["quarantined"]["files"] == sum(isinstance(outcome, str) for outcome in expected.values())
    ranked = rows_of(ladm, store, "select source, score from ranking join documents using (doc_id)")
    assert all(abs(row["score"]) < float("inf") for row in ranked)
    assert sum(row["source"].endswith(("letters.jsonl", "poems.jsonl")) for row in ranked) == 7
    # The domain is a name, never a path: all that was written is below the store.
    assert {path.name for path in tmp_path.iterdir()} == {"hostile", "corpus", "store"}
