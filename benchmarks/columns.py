"""Benchmark: what the columns of the text cost, beside tokenization of the same documents.

Windows are cut from the corpus as the stage `tokenize` does it, and from every window its columns are worked out as the
stage `measure` does it, the window's text decoded from its tokens included; the features of vocabulary, which scoring
works out by itself, are told apart. Beside both stands what the tokenizers library takes to tokenize the windows' text,
since the stage, which looks up words that it met before, is several times as fast. CPU time of all threads, without
reading and writing files; by turns. The variable is what the `ladm` command sets: shared among threads, small matrices
take longer.

    OPENBLAS_NUM_THREADS=1 python benchmarks/columns.py [--lengths 1024 4096] [--documents 400] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from corpus import SHARED, documents
from measure import timed
from results import write_section

from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.scorers.loaded_model import text_reader
from ladm.tasks.scorers.text import text_columns
from ladm.tasks.scorers.vocabulary import vocabulary_features
from ladm.tasks.tokenizing.tokenizer import load_tokenizer
from ladm.tasks.tokenizing.windows import WindowConfig, cut_documents


def main() -> None:
    """Time both by turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, default=SHARED, metavar="FOLDER")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096], metavar="TOKENS")
    parser.add_argument("--documents", type=int, default=400, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    options = parser.parse_args()
    records = list(documents(options.corpus))
    texts = [record["text"] for record in records[:: max(1, len(records) // options.documents)]]
    rows = [row for length in options.lengths for row in timed_rows(texts, length, options.rounds)]
    command = (
        f"OPENBLAS_NUM_THREADS=1 python benchmarks/columns.py --lengths {' '.join(map(str, options.lengths))} "
        f"--documents {options.documents} --rounds {options.rounds}"
    )
    text = (
        f"{len(texts)} documents of the corpus, SmolLM2's tokenizer. `first`: one window a document, whose tokens are "
        "exactly counted; `all`: every window of it. CPU time, medians of each round's own."
    )
    columns = ["window", "windows", "the stage `tokenize`", "the library, windows' text", "columns of the text"]
    columns += ["÷ stage", "÷ library", "vocabulary", "÷ stage"]
    packages = ["ladm", "tokenizers", "zstandard", "numpy"]
    print(write_section("Columns of the text", command, packages, columns, rows, text))


def timed_rows(texts: list[str], length: int, rounds: int) -> list[list[str]]:
    """A row for the first window of each document, and one for all of them."""
    model = resolve_model("embedded", print)
    text_of = text_reader("embedded", model.tokenizer_digest)
    if text_of is None:
        raise SystemExit("the embedded model has a tokenizer")
    rows = []
    for take in ("first", "all"):
        config = WindowConfig.model_validate({"length": length, "take": take})
        spent: dict[str, list[float]] = {"tokenize": [], "library": [], "columns": [], "vocabulary": []}
        windows: list[Any] = []
        for _ in range(rounds):
            cut, seconds = cpu(lambda config=config: cut_documents(texts, load_tokenizer(model), config))
            spent["tokenize"].append(seconds)
            windows = [window.input_ids for document in cut for window in document.windows]
            window_texts, tokenizer = list(map(text_of, windows)), load_tokenizer(model)
            encode = partial(tokenizer.encode_batch_fast, window_texts, add_special_tokens=False)
            spent["library"].append(cpu(encode)[1])
            for name, work in (
                ("columns", lambda ids_L: text_columns(ids_L, text_of(ids_L))),
                ("vocabulary", vocabulary_features),
            ):
                spent[name].append(cpu(lambda work=work, windows=windows: [work(ids_L) for ids_L in windows])[1])
        times = {name: f"{statistics.median(seconds):.2f} s" for name, seconds in spent.items()}
        cells = [times["tokenize"], times["library"], times["columns"]]
        cells += [share(spent["columns"], spent["tokenize"]), share(spent["columns"], spent["library"])]
        cells += [times["vocabulary"], share(spent["vocabulary"], spent["tokenize"])]
        rows.append([f"{length:,}, {take}", f"{len(windows):,}", *cells])
        print("  ".join(rows[-1]), flush=True)
    return rows


def share(some: list[float], whole: list[float]) -> str:
    """What some seconds are of others, the median of each round's own."""
    return f"{statistics.median(one / other for one, other in zip(some, whole, strict=True)):.2f}"


def cpu(work: Callable[[], Any]) -> tuple[Any, float]:
    """What some work gives, and its CPU seconds."""
    with timed() as seconds:
        found = work()
    return found, seconds["cpu"]


if __name__ == "__main__":
    main()
