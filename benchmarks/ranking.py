"""Benchmark: ranking and selection in DuckDB against the published filter, which holds all rows in Python lists.

The competitor does what the released LADM filter does, written anew: read every score as a JSON line into a list of
dicts, sort it, split it by domain, and for 1, 2, 3 … percent gather the best documents of every domain and add up their
tokens, until they pass the budget. The release asks a `datasets` table for the tokens of each document again at each
percent; that is one variant, and the other, kinder one finds the numbers in the list itself. The candidate is the rank
stage with `select.allocation: published`, which selects the same documents (checked), and with the default allocation;
both also write the ranking of all documents. Each runs in a process of its own, by turns.

    pip install -c constraints.txt -e '.[test,readers]' && python benchmarks/ranking.py [--rows 1000000 10000000]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measure import Answer, call, cells, median_cost, timed
from results import write_section

from ladm.tasks.job import Job, run_job
from ladm.tasks.manifest import Shard
from ladm.tasks.schema import SCORES
from ladm.tasks.selection import SelectConfig
from ladm.tasks.stages.rank import STAGE
from ladm.tasks.storage.store import Store

RELEASED = "the published filter, as released"
LISTS = "the published filter, tokens in its list"
LADM = "ladm, `allocation: published`"
LADM_DEFAULT = "ladm, `allocation: proportional`"
COMPARED_ROWS = 1_000_000
"""Beyond so many rows the published filter is not run: its lists would not fit, nor its time."""
SHARD_ROWS = 250_000
WINDOW = 32_768
SHARES = {"Web": 0.45, "Books": 0.15, "Code": 0.15, "Papers": 0.1, "Law": 0.06, "Wiki": 0.05, "Mail": 0.03, "QA": 0.01}


def main() -> None:
    """Run the benchmark and write its table; with --work, do one variant's work and say what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="by turns; the medians are taken")
    parser.add_argument("--share", type=float, default=0.25, help="of all tokens, the budget")
    parser.add_argument("--work", choices=[RELEASED, LISTS, LADM, LADM_DEFAULT], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(do_work(options.work, options.folder)))
        return
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="ladm-ranking-") as name:
            table = measured(rows, options.rounds, options.share, Path(name))
        compared = rows <= COMPARED_ROWS
        text = (
            f"Windows of {WINDOW:,} tokens, one a document, in {len(SHARES)} domains; the budget is "
            f"{options.share:.0%} of all tokens; rounds: {options.rounds}. Reading and writing count, starting Python "
            "and importing do not; peak memory is the whole process's."
        )
        if compared:
            text += (
                " The documents that the published filter and `allocation: published` select are the same ones. For "
                "the released filter's look-ups a row of the `datasets` table holds 64 token ids, not "
                f"{WINDOW:,}, which is kind to it; what they cost grows with the square of the budget's share."
            )
        columns = ["rows", "what", "wall", "CPU", "peak memory", "wall, of ladm's"]
        command = f"python benchmarks/ranking.py --rows {rows} --rounds {options.rounds}"
        packages = ["ladm", "duckdb", "pyarrow", *(["datasets"] if compared else [])]
        title = "Ranking" if compared else "Ranking, out of core"
        print(write_section(title, command, packages, columns, table, text))


def measured(rows: int, rounds: int, share: float, folder: Path) -> list[list[str]]:
    """The table's lines for so many score rows."""
    make_input(folder, rows, share, released=rows <= COMPARED_ROWS)
    variants = [RELEASED, LISTS, LADM, LADM_DEFAULT] if rows <= COMPARED_ROWS else [LADM, LADM_DEFAULT]
    answers: dict[str, list[Answer]] = {variant: [] for variant in variants}
    for number in range(rounds):
        turn = number % len(variants)
        for variant in (*variants[turn:], *variants[:turn]):
            answers[variant].append(call(__file__, ["--work", variant, "--folder", folder]))
            cost = answers[variant][-1].work
            print(f"{rows:,} rows, {variant}: {'  '.join(cells(cost))}", file=sys.stderr, flush=True)
    selections = {variant: {answer.said["selected"] for answer in answers[variant]} for variant in variants}
    same = set().union(*(selections[variant] for variant in variants if variant != LADM_DEFAULT))
    assert len(same) == 1, f"not the same documents: {selections}"
    ladm = [answer.work.wall for answer in answers[LADM]]
    lines = []
    for variant in variants:
        works = [answer.work for answer in answers[variant]]
        ratio = statistics.median(work.wall / own for work, own in zip(works, ladm, strict=True))
        lines.append([f"{rows:,}", variant, *cells(median_cost(works)), f"{ratio:,.1f}"])
    return lines


# -- the input -----------------------------------------------------------------------------------------------


def make_input(folder: Path, rows: int, share: float, released: bool) -> None:
    """Write the scores: as ladm's shards, and for the published filter as JSON lines and a `datasets` table."""
    store, shards, tokens = Store(str(folder / "store")), [], 0
    lines = (folder / "part0-score.json").open("w") if released else None
    for number, table in enumerate(score_tables(rows)):
        key = hashlib.sha256(f"{number} of {rows}".encode()).hexdigest()
        shards.append(store.write_shard("score", key, table))
        tokens += int(np.sum(table["doc_tokens"].to_numpy()))
        if lines:
            columns = (table[name].to_pylist() for name in ("doc_id", "domain", "cds", "doc_tokens"))
            for index, (doc_id, domain, score, length) in enumerate(zip(*columns, strict=True)):
                row = {"index": number * SHARD_ROWS + index, "score": score, "meta": {"pile_set_name": domain}}
                lines.write(json.dumps(row | {"doc_id": doc_id, "tokens": length}) + "\n")
    if lines:
        lines.close()
        make_dataset(folder / "dataset", rows)
    plan = {"budget": int(share * tokens), "shards": [shard.as_dict() for shard in shards]}
    (folder / "plan.json").write_text(json.dumps(plan))


def score_tables(rows: int) -> Iterator[pa.Table]:
    """Made-up scores, shard by shard: domains of very different sizes, no two scores alike."""
    random = np.random.default_rng(rows)
    for begin in range(0, rows, SHARD_ROWS):
        n = min(SHARD_ROWS, rows - begin)
        ids = random.bytes(16 * n).hex()
        doc_ids = [ids[32 * index : 32 * index + 32] for index in range(n)]
        cds_N = random.gamma(2.0, 1.0, n)
        columns: dict[str, Any] = {
            "window_id": [f"{doc_id}:0" for doc_id in doc_ids],
            "doc_id": doc_ids,
            "domain": random.choice(list(SHARES), n, p=list(SHARES.values())),
            "window_index": np.zeros(n, np.int32),
            "n_tokens": np.full(n, WINDOW, np.int32),
            "doc_tokens": np.full(n, WINDOW, np.int64),
            "doc_tokens_exact": np.zeros(n, bool),
            "cds": cds_N,
            "cds_per_layer": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), pa.array(cds_N)),
            "layers": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), pa.array(np.full(n, 17, np.int32))),
        }
        arrays = [
            pa.array(columns[field.name], type=field.type) if field.name in columns else pa.nulls(n, field.type)
            for field in SCORES
        ]
        yield pa.Table.from_arrays(arrays, schema=SCORES)


def make_dataset(path: Path, rows: int) -> None:
    """The token ids of every document as a `datasets` table, 64 a document."""
    from datasets import Dataset  # noqa: PLC0415  (only the published filter needs it)

    ids = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(64 * rows, np.int32)), 64)
    Dataset(pa.table({"input_ids": ids.cast(pa.list_(pa.int32()))})).save_to_disk(str(path))


# -- the work ------------------------------------------------------------------------------------------------


def do_work(variant: str, folder: Path) -> dict[str, Any]:
    """One variant's selection: its cost, and a digest of the documents selected."""
    plan = json.loads((folder / "plan.json").read_text())
    if variant in (LADM, LADM_DEFAULT):
        allocation = "published" if variant == LADM else "proportional"
        config = SelectConfig(allocation=allocation, budget_tokens=plan["budget"]).model_dump()
        store = Store(str(folder / "store"))
        importlib.import_module("pandas")  # DuckDB would at its first query, and importing does not count
        shards = [Shard.from_dict(shard) for shard in plan["shards"]]
        with timed() as seconds:
            done = run_job(STAGE, Job(stage="rank", label="all", store=store.uri, config=config, inputs=shards))
        # batch by batch: the peak of memory is to be the work's
        batches = store.shard_batches(done.shards[0], SHARD_ROWS, ["doc_id", "selected"])
        selected = digest(doc_id for batch in batches for doc_id in selected_ids(batch))
        for shard in done.all_files():
            store.remove(shard.path)
        return {**seconds, "selected": selected}
    if variant == RELEASED:
        from datasets import load_from_disk  # noqa: PLC0415

        dataset = load_from_disk(str(folder / "dataset"))
    with timed() as seconds:
        if variant == RELEASED:
            # 64 ids stand for a window's
            tokens_of = lambda row: len(dataset[row["index"]]["input_ids"]) * WINDOW // 64  # noqa: E731
        else:
            tokens_of = lambda row: row["tokens"]  # noqa: E731
        selected = published_filter(folder, plan["budget"], tokens_of)
    return {**seconds, "selected": digest(selected)}


def published_filter(folder: Path, budget: int, tokens_of: Any) -> list[str]:
    """All rows in lists, percent by percent; writes the sorted rows, as the released filter does."""
    with (folder / "part0-score.json").open() as lines:
        rows = [json.loads(line) for line in lines]
    rows.sort(key=lambda row: row["score"], reverse=True)
    with (folder / "sorted.jsonl").open("w") as out:
        for rank, row in enumerate(rows):
            row["rank"] = rank
            out.write(json.dumps(row) + "\n")
    domains = sorted({row["meta"]["pile_set_name"] for row in rows})
    best_of = {domain: [row for row in rows if row["meta"]["pile_set_name"] == domain] for domain in domains}
    taken: list[Any] = []
    for percent in range(1, 101):
        taken = [row for best in best_of.values() for row in best[: percent * len(best) // 100]]
        if sum(map(tokens_of, taken)) > budget:
            break
    return [row["doc_id"] for row in taken]


def selected_ids(ranking: pa.RecordBatch) -> list[str]:
    """The selected documents of some rows of a ranking."""
    ids: list[str] = ranking.filter(ranking["selected"])["doc_id"].to_pylist()
    return ids


def digest(doc_ids: Iterable[str]) -> str:
    """The same for the same documents in any order."""
    sums = sum(int.from_bytes(hashlib.sha256(doc_id.encode()).digest()) for doc_id in doc_ids)
    return f"{sums:x}"


if __name__ == "__main__":
    main()
