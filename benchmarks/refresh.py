"""Benchmark: the whole DAG with the embedded model, cold, warm, and with one document in a hundred changed.

The competitor of the second and third run is the first: what a pipeline costs every night that keeps nothing. Every run
is the command `ladm run` in a process of its own, measured from its start to its end. The source files are the corpus
dealt out anew; the documents that change are those of one file, as when a day's file is delivered again.

    python benchmarks/refresh.py [--documents 900]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from corpus import SHARED, documents, write_file, write_files
from measure import Answer, call, cells, median_cost
from results import write_section

FILES = 100


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, default=SHARED, metavar="FOLDER")
    parser.add_argument("--documents", type=int, default=900, metavar="N", help="a multiple of 100")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of the warm and the changed run")
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        from ladm.flows.cli import main as ladm  # noqa: PLC0415

        sys.exit(ladm(options.run))
    with tempfile.TemporaryDirectory(prefix="ladm-refresh-") as name:
        rows, windows = measured(Path(name), options.corpus, options.documents, options.rounds)
    columns = ["run", "wall", "CPU", "peak memory", "wall, of cold", "windows scored", "ranking alone"]
    text = (
        f"{options.documents} documents of the corpus in {FILES} source files, windows of 1,024 tokens, the embedded "
        f"model scored by its calibration, {windows} windows, all stages to the export of two formats. The times are "
        f"of the whole command, from starting Python on. Cold ran once; the others are medians of {options.rounds}, "
        f"in each of which the {options.documents // FILES} documents of another file were changed."
    )
    command = f"python benchmarks/refresh.py --documents {options.documents} --rounds {options.rounds}"
    packages = ["ladm", "prefect", "torch", "transformers"]
    print(write_section("The DAG, cold, warm and changed", command, packages, columns, rows, text))


def measured(folder: Path, corpus: Path, count: int, rounds: int) -> tuple[list[list[str]], int]:
    """The table's lines, and how many windows the input gives."""
    every = list(documents(corpus))
    records = [every[number * len(every) // count] for number in range(count)]
    paths = write_files(folder / "sources", records, FILES)
    config = folder / "config.yaml"
    config.write_text(
        f"store: {folder}/store\n"
        f"sources: ['{folder}/sources/*.jsonl']\n"
        "window: {length: 1024, take: first}\n"
        "scorer: {span: 32, layers: calibrated, model: embedded}\n"
        "select: {budget_tokens: 400000}\n"
        "export: [parquet, jsonl.zst]\n"
    )
    cold = run(config)
    windows = cold.said["windows_scored"]
    warm = [run(config) for _ in range(rounds)]
    assert not any(answer.said["windows_scored"] for answer in warm)
    changed = []
    for number in range(rounds):
        path = paths[number * FILES // rounds]
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        write_file(path, [{**line, "text": "Revised.\n" + line["text"]} for line in lines])
        changed.append(run(config))
        assert changed[-1].said["refresh"]["changed"]["files"] == 1
    rows = []
    for what, answers in (("cold", [cold]), ("warm", warm), ("1 % changed", changed)):
        whole = median_cost([answer.whole for answer in answers])
        scored = sorted(answer.said["windows_scored"] for answer in answers)[len(answers) // 2]
        ranking = sorted(answer.said["stages"]["rank"]["seconds"] for answer in answers)[len(answers) // 2]
        share = whole.wall / cold.whole.wall
        rows.append([what, *cells(whole), f"{share:.1%}", f"{scored:,}", f"{ranking:.2f} s"])
    return rows, windows


def run(config: Path) -> Answer:
    """One `ladm run`."""
    answer = call(__file__, ["--run", "run", config, "--json"])
    said = {stage: (one["run"], one["cached"]) for stage, one in answer.said["stages"].items()}
    print(f"{'  '.join(cells(answer.whole))}  {said}", file=sys.stderr, flush=True)
    return answer


if __name__ == "__main__":
    main()
