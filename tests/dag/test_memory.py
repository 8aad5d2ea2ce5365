"""The memory of a run does not grow with its input: ten times the text in one file, a tenth more at most. Slow.

`pytest -m slow tests/dag/test_memory.py -rP` prints the figures.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from conftest import WORDS
from test_many_shards import peak_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
TEXT_BYTES = 256 * 2**20  # four shards of the default size, so that all threads have one
DOCUMENT_BYTES = 60_000
MOST_GROWTH = 1.1


def write_source(path: Path, size: int) -> int:
    """One .jsonl.zst file of made-up documents, `size` bytes of text in all; the number of documents."""
    chance = random.Random(1)
    pool = " ".join(chance.choices(WORDS, k=2_000_000))
    count = size // DOCUMENT_BYTES
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as out:
        for number in range(count):
            start = chance.randrange(len(pool) - DOCUMENT_BYTES)
            text = f"{number} {pool[start : start + DOCUMENT_BYTES]}"
            out.write(json.dumps({"text": text}).encode() + b"\n")
    return count


def peak_of_run(folder: Path, model: Path, size: int) -> int:
    """Bytes: the most that a run until `tokenize` held, with a fresh store."""
    folder.mkdir()
    documents = write_source(folder / "source.jsonl.zst", size)
    settings = {"sources": folder / "source.jsonl.zst", "scorer.model": model, "window.length": 2048}
    arguments = ["run", "--until", "tokenize", "--json", "--store", str(folder / "store")]
    for name, value in settings.items():
        arguments += ["--set", f"{name}={value}"]
    command = [sys.executable, "-c", "import sys; from ladm.flows.cli import main; sys.exit(main())", *arguments]
    with (folder / "log").open("wb") as log, (folder / "record.json").open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=log)
        peak = peak_of(running)
    assert running.returncode == 0, (folder / "log").read_text()[-2000:]
    record = json.loads((folder / "record.json").read_text())
    print(f"{size / 2**20:,.0f} MiB of text: peak {peak / 2**20:,.0f} MiB, {record['seconds']:.0f} s")
    assert record["stages"]["ingest"]["kept"] == documents
    assert record["stages"]["length"]["kept"] == documents
    assert record["stages"]["tokenize"]["run"] > size / 2**26 - 1
    shutil.rmtree(folder)
    return peak


def test_ten_times_the_input_takes_no_more_memory(tmp_path: Path, tiny_model: Path) -> None:
    one = peak_of_run(tmp_path / "one", tiny_model, TEXT_BYTES)
    ten = peak_of_run(tmp_path / "ten", tiny_model, 10 * TEXT_BYTES)
    assert ten < MOST_GROWTH * one
