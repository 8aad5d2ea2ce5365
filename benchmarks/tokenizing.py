"""Benchmark: ingestion, length filter and tokenization against datatrove, which people use for the same.

The competitor is datatrove's pipeline for it, with two workers: `JsonlReader`, a `LambdaFilter` that drops what has
fewer bytes than a window has tokens, and `DocumentTokenizer`, unshuffled, which writes the tokens of every document. It
has a task for each worker, which costs it least. The candidate is
`ladm run --until tokenize` with `window.count: exact`, which counts every document's tokens as well, and writes
documents, windows and their account. Both use the same tokenizer and find the same documents that fill a window, with
the same numbers of tokens (checked). A second candidate is ladm's default, which tokenizes only what the windows need.
Each runs in a process of its own, by turns. With `--files N` the text lies in N files, a piece of a document in each;
with `--made-up` besides, each file is a document of 700 words out of 3,000 that are made up, as in `many_files.py`.

    pip install -c constraints.txt -e '.[test]' -r benchmarks/requirements.txt && python benchmarks/tokenizing.py
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from corpus import SHARED, documents, made_up_texts, records_of, write_file
from measure import Answer, call, cells, median_cost, timed
from results import write_section

# Nothing of ladm is imported here: this module is loaded by datatrove's process, too.
DATATROVE, EXACT, DEFAULT = "datatrove, 2 workers", "ladm, `count: exact`", "ladm, as by default"
VARIANTS = (DATATROVE, EXACT, DEFAULT)
WORKERS = 2
Place = tuple[str, int]
"""A source file's name and a line."""


def main() -> None:
    """Run the benchmark and write its table; with --work, do one variant's work and say what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, default=SHARED, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="by turns; the medians are taken")
    parser.add_argument("--files", type=int, metavar="N", help="lay the text out in so many files")
    parser.add_argument("--made-up", action="store_true", help="with --files: documents of made-up words")
    parser.add_argument("--window", type=int, default=4096, metavar="TOKENS")
    parser.add_argument("--work", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tokenizer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    corpus = options.corpus.resolve()
    if options.work:
        if options.work == DATATROVE:
            said = with_datatrove(corpus, options.folder, options.tokenizer, options.window)
        else:
            count = "exact" if options.work == EXACT else "estimate"
            said = with_ladm(corpus, options.folder, count, options.window)
        print(json.dumps(said))
        return
    with tempfile.TemporaryDirectory(prefix="ladm-tokenizing-") as name:
        if options.files:
            pieces = Path(name) / "files"
            if options.made_up:
                write_made_up(pieces, options.files)
            else:
                write_pieces(pieces, corpus, options.files)
            corpus = pieces
        rows = measured(corpus, Path(name), options.rounds, options.window)
        paths = sources(corpus)
        size = sum(len(record["text"].encode()) for path in paths for record in records_of(path))
    columns = ["what", "wall", "text a second", "CPU", "peak memory", "× datatrove", "work alone, wall", "× datatrove"]
    text = (
        f"{size / 1e6:.1f} MB of text in {len(paths):,} files, windows of {options.window:,} tokens, "
        f"SmolLM2's tokenizer; {options.rounds} rounds, medians, ratios of throughput are medians of each round's own. "
        "Wall and CPU time are of the whole process, from starting Python to its end, with its workers and, for ladm, "
        "Prefect's server; the work alone begins when the pipeline does and leaves starting and importing out."
    )
    for row in rows:
        row.insert(2, f"{size / 1e6 / float(row[1].split()[0]):.2f} MB")
    command = f"python benchmarks/tokenizing.py --rounds {options.rounds}"
    title = "Ingest, filter, tokenize"
    if options.files:
        command += f" --files {options.files} --window {options.window}"
        title += f", {options.files:,} files"
    if options.files and options.made_up:
        command += " --made-up"
        title += " of made-up words"
    packages = ["ladm", "datatrove", "tokenizers", "prefect"]
    print(write_section(title, command, packages, columns, rows, text))


def sources(corpus: Path) -> list[Path]:
    """The source files, in their order."""
    return sorted([*corpus.glob("*.jsonl.zst"), *corpus.glob("*.jsonl")])


def write_pieces(folder: Path, corpus: Path, files: int) -> None:
    """Cut the documents into so many pieces of about the same size, each a file; short documents are put together."""
    records = list(documents(corpus))
    total = sum(len(record["text"]) for record in records)
    folder.mkdir()
    before, written, text = 0, 0, ""
    for record in records:
        before += len(record["text"])
        text += record["text"]
        due = round(files * before / total) - written
        for number in range(due):
            piece = text[len(text) * number // due : len(text) * (number + 1) // due]
            write_file(folder / f"{written + number:06d}.jsonl", [{**record, "text": piece}])
        written, text = written + due, "" if due else text


def write_made_up(folder: Path, files: int) -> None:
    """Write so many files of one made-up document each."""
    folder.mkdir()
    for number, text in zip(range(files), made_up_texts(), strict=False):
        write_file(folder / f"{number:06d}.jsonl", [{"text": text, "meta": {"pile_set_name": f"d{number % 4}"}}])


def measured(corpus: Path, folder: Path, rounds: int, window: int) -> list[list[str]]:
    """The table's lines."""
    from ladm.tasks.models.resolve import resolve_model  # noqa: PLC0415

    # ladm reads the names of special tokens in a text as text; without the list of them datatrove does, too.
    tokenizer = folder / "tokenizer.json"
    form = json.loads((resolve_model("embedded", print).path / "tokenizer.json").read_bytes())
    tokenizer.write_text(json.dumps({**form, "added_tokens": []}))
    answers: dict[str, list[Answer]] = {variant: [] for variant in VARIANTS}
    tokens: dict[str, dict[Place, int]] = {}
    for number in range(rounds):
        turn = number % len(VARIANTS)
        for variant in (*VARIANTS[turn:], *VARIANTS[:turn]):
            with tempfile.TemporaryDirectory(dir=folder) as name:
                place = Path(name)
                options = ["--corpus", corpus, "--folder", place, "--tokenizer", tokenizer, "--work", variant]
                options += ["--window", window]
                answers[variant].append(call(__file__, options))
                found = datatrove_tokens(corpus, place, window) if variant == DATATROVE else ladm_tokens(place)
            assert tokens.setdefault(variant, found) == found, f"{variant} differs from round to round"
            print(f"{variant}: {'  '.join(cells(answers[variant][-1].whole))}", file=sys.stderr, flush=True)
    assert tokens[EXACT] == tokens[DATATROVE], differences(tokens[EXACT], tokens[DATATROVE])
    assert tokens[DEFAULT].keys() == tokens[DATATROVE].keys(), differences(tokens[DEFAULT], tokens[DATATROVE])
    rows = []
    for variant in VARIANTS:
        whole = median_cost([answer.whole for answer in answers[variant]])
        work = statistics.median(answer.said["wall"] for answer in answers[variant])
        pairs = list(zip(answers[DATATROVE], answers[variant], strict=True))
        of_whole = statistics.median(theirs.whole.wall / ours.whole.wall for theirs, ours in pairs)
        of_work = statistics.median(theirs.said["wall"] / ours.said["wall"] for theirs, ours in pairs)
        rows.append([variant, *cells(whole), f"{of_whole:.2f}", f"{work:.2f} s", f"{of_work:.2f}"])
    return rows


def differences(ours: dict[Place, int], theirs: dict[Place, int]) -> str:
    """What two counts of tokens do not agree on."""
    wrong = {place: (ours.get(place), theirs.get(place)) for place in ours.keys() | theirs.keys()}
    wrong = {place: pair for place, pair in sorted(wrong.items()) if pair[0] != pair[1]}
    return f"{len(wrong)} documents differ: {dict(list(wrong.items())[:10])}"


# -- the work ------------------------------------------------------------------------------------------------


def with_ladm(corpus: Path, folder: Path, count: str, window: int) -> dict[str, float]:
    """The stages up to tokenization, as `ladm run` does them; says how long the run took by its own record."""
    from ladm.flows.cli import main as ladm  # noqa: PLC0415

    config = folder / "config.yaml"
    config.write_text(
        f"sources: ['{corpus}/*.jsonl*']\nwindow: {{length: {window}, count: {count}}}\nscorer: {{model: embedded}}\n"
    )
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = ladm(["run", str(config), "--until", "tokenize", "--store", str(folder / "store"), "--json"])
    assert code == 0, f"ladm run ended with {code}"
    return {"wall": json.loads(out.getvalue())["seconds"]}


def with_datatrove(corpus: Path, folder: Path, tokenizer: Path, window: int) -> dict[str, float]:
    """The pipeline of datatrove; says how long it ran."""
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415
    from datatrove.pipeline.filters import LambdaFilter  # noqa: PLC0415
    from datatrove.pipeline.readers import JsonlReader  # noqa: PLC0415
    from datatrove.pipeline.tokens import DocumentTokenizer  # noqa: PLC0415

    executor = LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(corpus), glob_pattern="*.jsonl*"),
            LambdaFilter(lambda document: len(document.text.encode()) >= window),
            DocumentTokenizer(
                str(folder / "tokens"), tokenizer_name_or_path=str(tokenizer), eos_token=None, shuffle_documents=False
            ),
        ],
        tasks=WORKERS,
        workers=WORKERS,
        logging_dir=str(folder / "logs"),
    )
    with timed() as seconds, contextlib.redirect_stdout(sys.stderr):
        executor.run()
    return {"wall": seconds["wall"]}


# -- what came of it -----------------------------------------------------------------------------------------


def ladm_tokens(folder: Path) -> dict[Place, int]:
    """(file, line) → tokens of every document that ladm cut a window from."""
    from ladm.flows.runs.read import read_record  # noqa: PLC0415
    from ladm.flows.runs.record import shards_of  # noqa: PLC0415
    from ladm.tasks.storage.store import Store  # noqa: PLC0415

    store = Store(str(folder / "store"))
    (run_id,) = store.names("runs")
    record = read_record(store, run_id)
    place_of: dict[str, Place] = {}
    for shard in shards_of(record, "length"):
        for row in store.read_shard(shard).select(["doc_id", "source", "line"]).to_pylist():
            place_of[row["doc_id"]] = Path(row["source"]).name, row["line"]
    tokens = {}
    for shard in shards_of(record, "tokenize"):
        for row in store.read_shard(shard).select(["doc_id", "doc_tokens"]).to_pylist():
            tokens[place_of[row["doc_id"]]] = row["doc_tokens"]
    return tokens


def datatrove_tokens(corpus: Path, folder: Path, window: int) -> dict[Place, int]:
    """The same of datatrove's files: one index a task, where each document ends."""
    tokens: dict[Place, int] = {}
    paths = sources(corpus)
    for rank in range(WORKERS):
        (index,) = (folder / "tokens").glob(f"{rank:05d}_*.index")
        lengths = np.diff(np.fromfile(index, np.uint64).astype(np.int64), prepend=0).tolist()
        places = [
            (path.name, line)
            for path in paths[rank::WORKERS]
            for line, record in enumerate(records_of(path), 1)
            if len(record["text"].encode()) >= window
        ]
        tokens |= {place: n for place, n in zip(places, lengths, strict=True) if n >= window}
    return tokens


if __name__ == "__main__":
    main()
