"""What `ladm evaluate` leaves behind: the table, the calibration, the costs, and a plot a contrast."""

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

from ladm.flows.evaluation.evaluate import Evaluation
from ladm.tasks.evaluation.table import ALL_DOMAINS, is_one_layer

CONTRACT = (
    *("contrast", "domain", "scorer", "formula", "layers", "auc", "auc_low", "auc_high", "pairs", "forward_passes"),
    "half",
)
"""The columns of the table, in order."""


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write everything into `folder`, in place of what an earlier evaluation left there; returns the files."""
    rows = [*evaluation.rows, *evaluation.calibrating_rows]
    pq.write_table(pa.Table.from_pylist(rows), folder / "evaluation.parquet")
    written = [folder / "evaluation.parquet"]
    about = {"stability": evaluation.stability, "costs": evaluation.costs}
    (folder / "stability.json").write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2))
    written.append(folder / "stability.json")
    if evaluation.calibration and evaluation.made:
        content = orjson.dumps(evaluation.calibration.model_dump(mode="json"))
        (folder / "calibration.json").write_bytes(content)
        written.append(folder / "calibration.json")
    written += [_plot(evaluation.rows, contrast, folder) for contrast in _contrasts(evaluation.rows)]
    return written


def print_evaluation(evaluation: Evaluation) -> None:
    """The table for people, on stdout: every choice but single layers, all domains."""
    out = RichConsole(file=sys.stdout, width=None if sys.stdout.isatty() else 130)
    for contrast in _contrasts(evaluation.rows):
        rows = [
            row
            for row in evaluation.rows
            if row["contrast"] == contrast and not is_one_layer(row["formula"], row["layers"])
        ]
        domains = sorted({row["domain"] for row in rows} - {ALL_DOMAINS})
        shown = Table(title=f"whole against {contrast}: AUC by domain (0.5 is chance)", title_justify="left")
        for name in ("scorer", "formula", "layers"):
            shown.add_column(name)
        for name in (*domains, ALL_DOMAINS, "95 %", "passes"):
            shown.add_column(name, justify="right")
        by_choice: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
        for row in rows:
            by_choice.setdefault((row["scorer"], row["formula"], row["layers"]), {})[row["domain"]] = row
        for choice, by_domain in by_choice.items():
            pooled = by_domain[ALL_DOMAINS]
            cells = [f"{by_domain[domain]['auc']:.2f}" if domain in by_domain else "" for domain in domains]
            interval = f"{pooled['auc_low']:.2f}–{pooled['auc_high']:.2f}"
            shown.add_row(*choice, *cells, f"{pooled['auc']:.3f}", interval, f"{pooled['forward_passes']:.2f}")
        out.print(shown)
    stable = Table(title="ranking of whole windows, Spearman against", title_justify="left")
    for name in ("formula", "layers", "against", "spearman", "windows"):
        stable.add_column(name)
    for row in evaluation.stability:
        value = "–" if row["spearman"] is None else f"{row['spearman']:.3f}"
        stable.add_row(row["formula"], row["layers"], row["against"], value, str(row["windows"]))
    out.print(stable)
    if evaluation.calibration:
        chosen = evaluation.calibration
        std = "with" if chosen.ablation == "none" else "without"
        kind = "made" if evaluation.made else "measured"
        ranks = "these layers"
        if chosen.dependency:
            ranks = f"attention to far text, weighed head by head, of layers {list(chosen.dependency.layers)}"
        layers = f"layers {list(chosen.layers)}, {std} standard deviation"
        out.print(f"calibration {kind}: {layers}; documents are ranked by {ranks}", highlight=False, soft_wrap=True)


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
            low, high = [row["auc_low"] for row in single], [row["auc_high"] for row in single]
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
