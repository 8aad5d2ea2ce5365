"""The main job as a newcomer runs it: the bundled sample under the embedded model, and a real corpus. Slow."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import SHARED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FOUR_GIB = 4 * 2**30


def run(*arguments: str) -> tuple[dict[str, Any], int]:
    """A run in a process of its own: its record, and the most memory that it and its children held, in bytes."""
    command = [sys.executable, "-m", "ladm.flows.cli", "run", "--json", *arguments]
    output = tempfile.TemporaryFile()  # noqa: SIM115  (a pipe would fill up while nobody reads it)
    process = psutil.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
    peak = 0
    while True:
        try:
            process.wait(timeout=0.2)
            break
        except psutil.TimeoutExpired:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in family if one.is_running()))
    assert process.returncode == 0
    with output:
        output.seek(0)
        record: dict[str, Any] = json.load(output)
    return record, peak


def first_of_each_domain(store: str) -> dict[str, str]:
    """Domain → the kind of the document at rank 1: whole, spliced or list."""
    kinds = "select domain, meta ->> '$.meta.kind' as kind, rank from ranking join documents using (doc_id, domain)"
    query = f"from ({kinds}) where rank = 1"
    command = [sys.executable, "-m", "ladm.flows.cli", "sql", query, "--store", store, "--format", "json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {row["domain"]: row["kind"] for row in rows}


def test_the_bundled_sample(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    first, peak = run("--store", store)
    assert first["status"] == "completed"
    assert first["windows_scored"] >= 40
    assert first["stages"]["rank"]["domains"] >= 4
    assert 0 < first["stages"]["rank"]["selected_tokens"] <= first["config"]["select"]["budget_tokens"]
    assert peak < FOUR_GIB
    assert first_of_each_domain(store) == dict.fromkeys(
        ("Books", "Code", "Legal", "Manuals", "QA", "Reference"), "whole"
    ), "neither a list nor a splice leads a domain"
    second, _ = run("--store", store)
    assert second["windows_scored"] == 0
    assert all(summary["run"] == 0 for summary in second["stages"].values())


def test_a_real_corpus_up_to_tokenization(tmp_path: Path) -> None:
    if not (SHARED / "corpus").is_dir():
        pytest.skip("../shared/corpus is not here")
    sources = f"sources={SHARED.resolve()}/corpus/*.jsonl.zst"
    record, peak = run(
        "--store", str(tmp_path / "store"), "--set", sources, "--set", "window.length=4096", "--until", "tokenize"
    )
    stages = record["stages"]
    assert (stages["ingest"]["in"], stages["ingest"]["kept"]) == (967, 967)
    assert stages["length"]["in"] == 967
    assert stages["tokenize"]["in"] == stages["length"]["kept"]
    for summary in stages.values():
        assert summary["in"] == summary["kept"] + sum(summary["dropped"].values()) + summary["quarantined"]
    assert stages["tokenize"]["tokens"] == 4096 * stages["tokenize"]["windows"]
    assert peak < FOUR_GIB
