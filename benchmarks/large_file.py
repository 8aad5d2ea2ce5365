"""Benchmark: one large file of JSON lines in many zstd frames, read by one task and in parts.

Both are read by the command `ladm run --until ingest`, in a process of its own, from its start to its end, by turns.
The same cores are there for both; the file is read once before, so that it lies in memory for both.

    python benchmarks/large_file.py [--megabytes 1000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

import zstandard
from measure import call
from results import write_section

FRAME_BYTES = 4 * 2**20
WAYS = {"one task": "ingest.part_bytes=0", "in parts": "ingest.part_bytes=33554432"}


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=1000, metavar="N", help="of JSON lines, decompressed")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        from ladm.flows.cli import main as ladm  # noqa: PLC0415

        sys.exit(int(ladm(options.run)))
    with tempfile.TemporaryDirectory(prefix="ladm-large-file-") as name:
        path = Path(name) / "large.jsonl.zst"
        records = written(path, options.megabytes * 2**20)
        stored = path.stat().st_size / 2**20
        rows = measured(path, options.rounds, options.megabytes, records)
    columns = [
        "read by",
        "jobs",
        "records",
        "reading, wall",
        "of one task",
        "CPU, whole command",
        "wall, whole command",
    ]
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    text = (
        f"{options.megabytes:,} MB of JSON lines, {stored:,.0f} MiB as stored, in frames of {FRAME_BYTES >> 20} MiB; "
        f"medians of {options.rounds} rounds. Load of the "
        f"machine at the end (1, 5 and 15 minutes): {load}."
    )
    command = f"python benchmarks/large_file.py --megabytes {options.megabytes} --rounds {options.rounds}"
    title = f"One large file, {options.megabytes:,} MB"
    print(write_section(title, command, ["ladm", "prefect", "pyarrow"], columns, rows, text))


def written(path: Path, size: int) -> int:
    """Write so many bytes of JSON lines, of made-up prose; how many records they are."""
    words = random.Random(0)
    known = ["".join(words.choices("abcdefghijklmnopqrstuvwxyz", k=words.randint(2, 9))) for _ in range(20_000)]
    pool = " ".join(words.choices(known, k=2_000_000))
    records, left = 0, size
    frame = bytearray()
    with path.open("wb") as file:
        while left > 0:
            begin, length = words.randrange(len(pool) - 200_000), words.choice([2_000, 8_000, 30_000, 120_000])
            line = {"text": pool[begin : begin + length], "meta": {"pile_set_name": "prose", "number": records}}
            frame += json.dumps(line).encode() + b"\n"
            records += 1
            if len(frame) >= FRAME_BYTES or len(frame) >= left:
                left -= len(frame)
                file.write(zstandard.compress(bytes(frame)))
                frame.clear()
    return records


def measured(path: Path, rounds: int, megabytes: int, records: int) -> list[list[str]]:
    """The table's lines."""
    found: dict[str, list[tuple[float, float, float, int]]] = {way: [] for way in WAYS}
    path.read_bytes()
    for number in range(rounds):
        for way in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
            store = path.parent / f"store-{number}-{list(WAYS).index(way)}"
            settings = [f"sources={path}", WAYS[way]]
            given = [one for setting in settings for one in ("--set", setting)]
            asked = ["--run", "run", "--json", "--until", "ingest", "--store", store, *given]
            answer = call(__file__, asked, watched=False)
            record = answer.said
            if record["stages"]["ingest"]["kept"] != records:
                sys.exit(f"{way}: {record['stages']['ingest']['kept']:,} of {records:,} records were kept")
            found[way].append(
                (record["seconds"], answer.whole.cpu, answer.whole.wall, record["stages"]["ingest"]["run"])
            )
            print(way, found[way][-1], file=sys.stderr, flush=True)
    middle = {way: [statistics.median(column) for column in zip(*taken, strict=True)] for way, taken in found.items()}
    base = middle["one task"][0]
    return [
        [
            way,
            f"{jobs:.0f}",
            f"{records:,}",
            f"{seconds:.1f} s ({megabytes / seconds:,.0f} MB/s)",
            f"{base / seconds:.2f} times the throughput",
            f"{cpu:.1f} s",
            f"{wall:.1f} s",
        ]
        for way, (seconds, cpu, wall, jobs) in middle.items()
    ]


if __name__ == "__main__":
    main()
