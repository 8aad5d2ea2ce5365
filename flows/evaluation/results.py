"""What `ladm evaluate` leaves behind: the table, the calibration, the costs, a plot a contrast, and what it prints."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console as RichConsole
from rich.table import Table

from ladm.flows.evaluation.answer import Evaluation
from ladm.flows.evaluation.verdict import verdict, worst_contrasts
from ladm.tasks.evaluation.contrast_set import JUNK
from ladm.tasks.evaluation.scores import is_one_layer
from ladm.tasks.evaluation.table import ALL_DOMAINS

SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("contrast", "domain", "scorer", "formula", "layers")),
        *(pa.field(name, pa.float64()) for name in ("auc", "auc_low", "auc_high")),  # no interval: null
        pa.field("pairs", pa.int64()),
        pa.field("forward_passes", pa.float64()),
        pa.field("half", pa.string()),
    ]
)
CONTRACT = tuple(SCHEMA.names)
"""The columns of the table, in order."""
_KINDS_IN_A_ROW = 7
_FEW_PAIRS = 20


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write everything into `folder`, in place of what an earlier evaluation left there; returns the files."""
    rows = [*evaluation.rows, *evaluation.calibrating_rows]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "evaluation.parquet")
    written = [folder / "evaluation.parquet"]
    about = {
        "stability": evaluation.stability,
        "costs": evaluation.costs,
        "held_back": evaluation.held_back,
        "lacks": evaluation.lacks,
        "verdict": verdict(evaluation.rows),
    }
    (folder / "stability.json").write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2))
    written.append(folder / "stability.json")
    if evaluation.calibration and evaluation.made:
        content = orjson.dumps(evaluation.calibration.model_dump(mode="json"))
        (folder / "calibration.json").write_bytes(content)
        written.append(folder / "calibration.json")
    written += [_plot(evaluation.rows, contrast, folder) for contrast in _contrasts(evaluation.rows)]
    return written


def print_evaluation(evaluation: Evaluation) -> None:
    """The results for people, on stdout: each choice's worst contrast first, and the verdict last."""
    out = RichConsole(file=sys.stdout, width=None if sys.stdout.isatty() else 130)
    out.print(_worst(evaluation.rows))
    contrasts = _contrasts(evaluation.rows)
    for contrast in contrasts:
        if contrast not in JUNK:
            out.print(_by_domain(evaluation.rows, contrast))
    junk = [contrast for contrast in contrasts if contrast in JUNK]
    for first in range(0, len(junk), _KINDS_IN_A_ROW):
        out.print(_by_kind(evaluation.rows, junk[first : first + _KINDS_IN_A_ROW]))
    out.print(_stability(evaluation))
    for line in said(evaluation):
        out.print(line, highlight=False, soft_wrap=True)


def said(evaluation: Evaluation) -> list[str]:
    """What is told in words: the calibration, what its gate holds back, what there was too little for, the verdict."""
    lines = []
    if evaluation.calibration:
        chosen = evaluation.calibration
        std = "with" if chosen.ablation == "none" else "without"
        weighed = chosen.coherence.pairs if chosen.coherence else chosen.dependency
        ranks = "these layers"
        if weighed:
            ranks = f"attention, weighed head by head, of layers {list(weighed.layers)}"
        ranks += ", less what is unlike real text" if chosen.gate else ""
        layers = f"layers {list(chosen.layers)}, {std} standard deviation"
        kind = "made" if evaluation.made else "measured"
        lines.append(f"calibration {kind}: {layers}; documents are ranked by {ranks}")
    if evaluation.held_back:
        shares = ", ".join(f"{one['domain']} {one['held_back']} of {one['windows']}" for one in evaluation.held_back)
        lines.append(f"held back of the real windows: {shares}")
    pairs = min((one.row["pairs"] for one in worst_contrasts(evaluation.rows) if one.choice[0] == "ladm"), default=0)
    if pairs < _FEW_PAIRS:
        lines.append(f"few documents: a worst contrast here rests on {pairs} pairs; give more --windows to trust it")
    return [*lines, *evaluation.lacks, verdict(evaluation.rows)]


def _worst(rows: Sequence[dict[str, Any]]) -> Table:
    shown = _table("worst contrast of each scorer: AUC, all domains", "scorer", "formula", "layers", "worst contrast")
    for name in ("AUC", "95 %", "pairs", "passes"):
        shown.add_column(name, justify="right")
    for one in worst_contrasts(rows):
        row = one.row
        numbers = f"{row['auc']:.2f}", _interval(row), str(row["pairs"]), f"{row['forward_passes']:.2f}"
        shown.add_row(*one.choice, row["contrast"], *numbers)
    return shown


def _by_domain(rows: Sequence[dict[str, Any]], contrast: str) -> Table:
    """One contrast, domain by domain."""
    own = [row for row in rows if row["contrast"] == contrast]
    domains = sorted({row["domain"] for row in own} - {ALL_DOMAINS})
    shown = _table(f"whole against {contrast}: AUC by domain (0.5 is chance)", "scorer", "formula", "layers")
    for name in (*domains, ALL_DOMAINS, "95 %", "passes"):
        shown.add_column(name, justify="right")
    for choice, by_domain in _by_choice(own, "domain").items():
        pooled = by_domain[ALL_DOMAINS]
        cells = [f"{by_domain[domain]['auc']:.2f}" if domain in by_domain else "" for domain in domains]
        shown.add_row(*choice, *cells, f"{pooled['auc']:.3f}", _interval(pooled), f"{pooled['forward_passes']:.2f}")
    return shown


def _by_kind(rows: Sequence[dict[str, Any]], kinds: Sequence[str]) -> Table:
    """Some kinds of junk, over all domains."""
    own = [row for row in rows if row["contrast"] in kinds and row["domain"] == ALL_DOMAINS]
    shown = _table("whole against junk: AUC, all domains", "scorer", "formula", "layers")
    for kind in kinds:
        shown.add_column(kind.replace("-", " "), justify="right")
    for choice, by_kind in _by_choice(own, "contrast").items():
        shown.add_row(*choice, *(f"{by_kind[kind]['auc']:.2f}" if kind in by_kind else "" for kind in kinds))
    return shown


def _stability(evaluation: Evaluation) -> Table:
    shown = _table("ranking of whole windows, Spearman against", "formula", "layers", "against", "spearman", "windows")
    for row in evaluation.stability:
        value = "–" if row["spearman"] is None else f"{row['spearman']:.3f}"
        shown.add_row(row["formula"], row["layers"], row["against"], value, str(row["windows"]))
    return shown


def _table(title: str, *columns: str) -> Table:
    shown = Table(title=title, title_justify="left")
    for name in columns:
        shown.add_column(name)
    return shown


def _by_choice(rows: Sequence[dict[str, Any]], name: str) -> dict[tuple[str, str, str], dict[str, dict[str, Any]]]:
    """Choice, but for single layers → value of the column `name` → row."""
    found: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if not is_one_layer(row["formula"], row["layers"]):
            found.setdefault((row["scorer"], row["formula"], row["layers"]), {})[row[name]] = row
    return found


def _interval(row: dict[str, Any]) -> str:
    return "–" if row["auc_low"] is None else f"{row['auc_low']:.2f}–{row['auc_high']:.2f}"


def _contrasts(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["contrast"] for row in rows))


def _plot(rows: Sequence[dict[str, Any]], contrast: str, folder: Path) -> Path:
    """AUC by layer, pooled over domains, one line a formula, as PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (without pyplot: no global state, no display)

    pooled = [row for row in rows if row["contrast"] == contrast and row["domain"] == ALL_DOMAINS]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for formula in dict.fromkeys(row["formula"] for row in pooled):
        single = [row for row in pooled if row["formula"] == formula and is_one_layer(row["formula"], row["layers"])]
        if single:
            layers = [int(row["layers"]) for row in single]
            line = axes.plot(layers, [row["auc"] for row in single], marker=".", label=f"{formula}, one layer")
            low, high = (
                [math.nan if row[name] is None else row[name] for row in single] for name in ("auc_low", "auc_high")
            )
            axes.fill_between(layers, low, high, alpha=0.15, color=line[0].get_color())
        else:
            for row in (row for row in pooled if row["formula"] == formula and not math.isnan(row["auc"])):
                axes.axhline(row["auc"], linestyle="--", label=f"{formula}, layers {row['layers']}", color="0.4")
    axes.axhline(0.5, color="0.8", zorder=0)
    axes.set(xlabel="layer", ylabel="AUC", ylim=(0, 1.02), title=f"whole against {contrast}, all domains")
    axes.legend(fontsize="small")
    path = folder / f"{contrast}.png"
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return path
