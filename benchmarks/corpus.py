"""The documents that benchmarks run on: those of a folder in the Pile's form, laid out anew as source files."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zstandard

SHARED = Path(__file__).parents[1] / ".." / "shared" / "corpus"
"""Where the development corpus lies, beside the repository; `--corpus` names another folder of .jsonl.zst files."""


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Every record of the folder's .jsonl.zst files, by file name and line."""
    paths = sorted(folder.glob("*.jsonl.zst"))
    if not paths:
        raise SystemExit(f"--corpus: no .jsonl.zst file in {folder}; name a folder that holds some")
    for path in paths:
        yield from records_of(path)


def records_of(path: Path) -> Iterator[dict[str, Any]]:
    """Every record of one file."""
    if path.suffix != ".zst":
        yield from map(json.loads, path.read_bytes().splitlines())
        return
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        for line in io.TextIOWrapper(reader, encoding="utf-8"):
            yield json.loads(line)


def made_up_texts(seed: int = 0) -> Iterator[str]:
    """Texts without end, of 700 words each out of 3,000 that are made up of letters."""
    words = random.Random(seed)
    known = ["".join(words.choices("abcdefghijklmnopqrstuvwxyz", k=words.randint(2, 9))) for _ in range(3000)]
    while True:
        yield " ".join(words.choices(known, k=700))


def write_files(folder: Path, records: Sequence[dict[str, Any]], files: int) -> list[Path]:
    """Deal the records out to so many .jsonl files, in turn, so that each holds some of every domain."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"part-{number:04d}.jsonl" for number in range(files)]
    for number, path in enumerate(paths):
        write_file(path, records[number::files])
    return paths


def write_file(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write one source file."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
