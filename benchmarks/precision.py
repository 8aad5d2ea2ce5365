"""Benchmark: what scoring in bfloat16 changes on a CPU, and what it takes.

The same windows go through `ladm run` twice, in float32 and in bfloat16, by the shipped calibration; told are the rank
correlations (Spearman) of every score and of the gate's distance, over all windows and the lowest of the domains, how
many of each best quarter are the same, and the CPU time of the two runs' scoring. The model is the embedded one.

    python benchmarks/precision.py [--corpus FOLDER] [--length 1024] [--windows 200]

Dimensions in names: W windows.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus import SHARED, documents, write_file
from results import write_section

import ladm
from ladm.tasks.evaluation.stability import spearman
from ladm.tasks.scorers.processor import multiplies_bfloat16

FEWEST = 8
"""Of a domain's windows, for a correlation of its own."""
SCORES = ("dependency_score", "order_score", "gate_distance", "ranked_by")


def main() -> None:
    """Score the windows twice and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, default=SHARED, metavar="FOLDER")
    parser.add_argument("--length", type=int, default=1024, metavar="TOKENS")
    parser.add_argument("--windows", type=int, default=200, metavar="N", help="of the corpus, one a document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_windows(options.corpus, options.length, options.windows, place / "corpus.jsonl")
        tables: dict[str, dict[str, dict[str, Any]]] = {}
        seconds: dict[str, float] = {}
        for dtype in ("float32", "bfloat16"):
            tables[dtype], seconds[dtype] = scored(place, dtype, options.length)
    ids = sorted(tables["float32"])
    if ids != sorted(tables["bfloat16"]):
        raise SystemExit("the two runs scored different windows")
    rows = []
    for name in SCORES:
        one_W, other_W = (np.array([tables[dtype][i][name] for i in ids], dtype=float) for dtype in tables)
        domain_W = np.array([tables["float32"][i]["domain"] for i in ids])
        rows.append([name, f"{spearman(one_W, other_W):.5f}", lowest(one_W, other_W, domain_W), same(one_W, other_W)])
        print("  ".join(rows[-1]), flush=True)
    has = "multiplies" if multiplies_bfloat16() else "does not multiply"
    text = (
        f"{len(ids)} windows of {options.length:,} tokens, one a document. Scoring took {seconds['bfloat16']:.0f} s of "
        f"a run in bfloat16 and {seconds['float32']:.0f} s in float32, "
        f"{seconds['bfloat16'] / seconds['float32']:.2f} times as long. This processor {has} in bfloat16."
    )
    command = f"python benchmarks/precision.py --length {options.length} --windows {options.windows}"
    columns = ["score", "Spearman", "lowest of the domains", "same in the best quarter"]
    print(write_section(f"Precision, {options.length:,} tokens", command, ["ladm", "torch"], columns, rows, text))


def write_windows(corpus: Path, length: int, wanted: int, path: Path) -> None:
    """The first documents of every domain that surely fill a window, in turn, until there are enough."""
    by_domain: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for record in documents(corpus):
        if len(record["text"]) > 8 * length:
            by_domain[record["meta"]["pile_set_name"]].append(record)
    chosen = [records[turn] for turn in range(wanted) for records in by_domain.values() if turn < len(records)]
    if len(chosen) < wanted:
        raise SystemExit(f"--windows: the corpus has {len(chosen)} documents that fill a window; ask for no more")
    write_file(path, chosen[:wanted])


def scored(place: Path, dtype: str, length: int) -> tuple[dict[str, dict[str, Any]], float]:
    """Window → its scores, and the seconds that the stage took."""
    run = ladm.run(
        {
            "sources": [{"uri": str(place / "corpus.jsonl"), "domain": "meta.pile_set_name"}],
            "store": str(place / dtype),
            "window": {"length": length, "take": "first"},
            "scorer": {"dtype": dtype, "device": "cpu"},
            "select": {"budget_tokens": None},
        },
        progress=False,
    )
    query = (
        "select s.window_id, s.domain, dependency_score, order_score, gate_distance, score as ranked_by "
        "from scores s join ranking using (doc_id)"
    )
    rows = run.sql(query).to_pylist()
    (spent,) = run.sql("select sum(seconds) s from stages where stage = 'score'").to_pylist()
    return {row["window_id"]: row for row in rows}, spent["s"]


def lowest(one_W: npt.NDArray[np.float64], other_W: npt.NDArray[np.float64], domain_W: npt.NDArray[np.str_]) -> str:
    """The lowest correlation within a domain, and which."""
    found = [
        (spearman(one_W[domain_W == name], other_W[domain_W == name]), str(name))
        for name in np.unique(domain_W)
        if (domain_W == name).sum() >= FEWEST
    ]
    return "{:.4f} ({})".format(*min(found)) if found else "–"


def same(one_W: npt.NDArray[np.float64], other_W: npt.NDArray[np.float64]) -> str:
    """The share of the highest quarter that is in the highest quarter of the other too."""
    size = max(1, len(one_W) // 4)
    both = {*np.argsort(-one_W, kind="stable")[:size]} & {*np.argsort(-other_W, kind="stable")[:size]}
    return f"{100 * len(both) / size:.0f} %"


if __name__ == "__main__":
    main()
