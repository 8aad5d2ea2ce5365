"""The report's charts, as SVG to stand inside the page.

matplotlib draws them once for light and dark: what it draws in one of `ROLES`' placeholder colours is given the page's
own colour of that role (a CSS variable), on no background. Text stays text, in sizes that can be read on a phone, and
none of it is taken for mathematics, whatever a domain is called. Every chart tells the same in words (`aria-label`);
the figures themselves are in the table below it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ladm.flows.report.facts import BARS, StageFlow
from ladm.flows.report.heatmaps import Heatmap
from ladm.tasks.printable import cell_text

ROLES = {
    name: f"#0101{number:02x}" for number, name in enumerate(("ink", "line", "chosen", "rest", "dropped", "bad"), 1)
}
"""Role → the colour that stands for it until the page gives it its own; no other element is drawn in these."""

INK, LINE, CHOSEN, REST, DROPPED, BAD = ROLES.values()
WIDTH = 4.4  # inches of 72 CSS pixels: 317 pixels, less than the width of a phone
MOST_ROWS = 40
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ladm",
    "text.parse_math": False,
    "font.size": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # of its fonts' cache, and of fonts that it does not find


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """An empty chart in the page's style, without pyplot: no display, no global state but rcParams meanwhile."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure, figure.subplots()


def _svg(figure: Figure, words: str) -> Markup:
    """The chart as an `svg` element that scales with its place, tells `words`, and has no colour of its own."""
    out = io.StringIO()
    with warnings.catch_warnings():
        # that its own font lacks a character: the text stays text, and the browser has fonts of all scripts
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    text = text[text.index("<svg") :]
    view = text[text.index("viewBox=") :].split('"', 2)[1]
    width = view.split()[2]
    body = text[text.index(">") + 1 :]
    for role, colour in ROLES.items():
        body = body.replace(colour, f"var(--{role})")
    opening = f'<svg viewBox="{view}" role="img" aria-label="{escape(words)}"'
    return Markup(f'{opening} style="max-width:{1.6 * float(width):.0f}px">{body}')


def name_of(text: str, longest: int = 28) -> str:
    """A name from the data as a short label."""
    return cell_text(text, longest) or "(no name)"


def funnel_chart(flow: Sequence[StageFlow]) -> Markup:
    """What share of each stage's input was kept, dropped and quarantined."""
    with _figure(WIDTH, 0.8 + 0.34 * len(flow)) as (figure, axes):
        parts = {
            "kept": ([one.kept for one in flow], CHOSEN),
            "dropped": ([sum(one.dropped.values()) for one in flow], DROPPED),
            "quarantined": ([one.quarantined for one in flow], BAD),
        }
        whole = np.maximum(1, np.array([one.received for one in flow]))
        _stacked(axes, [f"{one.stage}\n{one.received:,} {one.unit}" for one in flow], parts, whole)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        words = "; ".join(
            f"{one.stage}: {one.received:,} {one.unit} in, {one.kept:,} kept, {sum(one.dropped.values()):,} dropped, "
            f"{one.quarantined:,} quarantined"
            for one in flow
        )
        return _svg(figure, f"Share of each stage's input that was kept. {words}.")


def jobs_chart(stages: dict[str, dict[str, Any]]) -> Markup:
    """How many jobs of each stage were run, found in the store, and failed."""
    with _figure(WIDTH, 0.8 + 0.3 * len(stages)) as (figure, axes):
        rows = list(stages.values())
        parts = {
            "found in the store": ([row["cached"] for row in rows], REST),
            "run": ([row["run"] for row in rows], CHOSEN),
            "failed": ([row["failed"] for row in rows], BAD),
        }
        _stacked(axes, list(stages), parts, np.ones(len(rows)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("jobs")
        words = "; ".join(f"{name}: {row['run']} run, {row['cached']} found" for name, row in stages.items())
        return _svg(figure, f"Jobs of each stage that were run or found in the store. {words}.")


def scores_chart(domain: str, bars: Sequence[dict[str, Any]], cut: float | None) -> Markup:
    """How one domain's scores are distributed; the selected documents in another colour, and a line at the cut."""
    with _figure(3.5, 2.0) as (figure, axes):
        low, high = bars[0]["lowest"], bars[0]["highest"]
        width = (high - low) / BARS or max(abs(high), 1.0) / BARS
        left_N = np.array([low + row["bar"] * width for row in bars])
        selected_N, others_N = (np.array([row[name] for row in bars]) for name in ("selected", "others"))
        axes.bar(left_N, others_N, width, align="edge", color=REST, label="not selected")
        axes.bar(left_N, selected_N, width, bottom=others_N, align="edge", color=CHOSEN, label="selected")
        if cut is not None:
            axes.axvline(cut, color=INK, linewidth=1, linestyle="--", label=f"cut {cut:.4g}")
        axes.set_title(name_of(domain, 40), loc="left")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlabel="score", ylabel="documents")
        axes.legend(fontsize="small", loc="best")
        total, chosen = int(others_N.sum() + selected_N.sum()), int(selected_N.sum())
        words = f"{name_of(domain, 80)}: scores of {total:,} documents, {low:.4g} to {high:.4g}; {chosen:,} selected"
        return _svg(figure, f"{words}, the lowest of them {cut:.4g}." if cut is not None else f"{words}.")


def allocation_chart(targets: Sequence[dict[str, Any]], labels: Sequence[str]) -> Markup:
    """Tokens that each domain or quota should have got (a mark) and got (a bar)."""
    rows, shown = targets[:MOST_ROWS], labels[:MOST_ROWS]
    with _figure(WIDTH, 1.0 + 0.26 * len(rows)) as (figure, axes):
        place_N = np.arange(len(rows))
        axes.barh(place_N, [row["selected_tokens"] for row in rows], 0.6, color=CHOSEN, label="selected")
        aimed = [(place, row["target_tokens"]) for place, row in enumerate(rows) if row["target_tokens"]]
        if aimed:
            places, tokens = zip(*aimed, strict=True)
            axes.scatter(tokens, places, marker="|", s=160, linewidths=2, color=INK, label="target", zorder=3)
        axes.set_yticks(place_N, shown)
        axes.invert_yaxis()
        axes.set_xlabel("tokens")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: short_number(tokens)))
        figure.legend(loc="outside upper left", ncols=2)
        words = "; ".join(
            f"{label}: {row['selected_tokens']:,} selected"
            + ("" if row["target_tokens"] is None else f" of {row['target_tokens']:,}")
            for label, row in zip(shown, rows, strict=True)
        )
        return _svg(figure, f"Tokens selected and their targets. {words}.")


def heatmap_chart(heatmap: Heatmap, title: str) -> Markup:
    """The attention mass of every span of a window on every earlier span."""
    pfs_NN = heatmap.pfs
    size = len(pfs_NN)
    seen = pfs_NN[np.isfinite(pfs_NN) & (pfs_NN > 0)]
    if not seen.size:
        return Markup("<p>No attention between spans was measured.</p>")
    with _figure(3.5, 3.1) as (figure, axes):
        low, high = float(np.quantile(seen, 0.02)), float(seen.max())
        image = axes.imshow(
            np.ma.masked_invalid(pfs_NN),
            cmap="viridis",
            norm=LogNorm(low, high if high > low else low * 1.01),
            interpolation="none",
            extent=(0, size, size, 0),
        )
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="attention mass (log)", format="{x:.3g}")
        bar.minorticks_off()
        bar.solids.set_rasterized(True)  # type: ignore[union-attr]
        bar.outline.set_edgecolor(LINE)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set(xlabel=f"earlier span of {heatmap.span} tokens", ylabel="later span")
        axes.set_title(name_of(title, 40), loc="left")
        query, key = np.unravel_index(int(np.nanargmax(pfs_NN)), pfs_NN.shape)
        far_NN = np.subtract.outer(np.arange(size), np.arange(size)) >= max(1, size // 4)
        share = float(np.nansum(np.where(far_NN, pfs_NN, 0)) / np.nansum(pfs_NN))
        words = (
            f"Attention between the {size} spans of {name_of(title, 80)}: the most, {high:.3g}, goes from span {query} "
            f"to span {key}; {share:.0%} of it goes a quarter of the window or further back."
        )
        return _svg(figure, words)


def short_number(number: float) -> str:
    """1,200 as `1.2k`, 3,000,000 as `3M`."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _stacked(axes: Axes, labels: Sequence[str], parts: dict[str, tuple[list[int], str]], whole: Any) -> None:
    """Horizontal bars, one a label, of parts one after the other; parts that are nowhere are left out."""
    place_N = np.arange(len(labels))
    done_N = np.zeros(len(labels))
    for name, (numbers, colour) in parts.items():
        share_N = np.array(numbers) / whole
        if share_N.any():
            axes.barh(place_N, share_N, 0.62, left=done_N, color=colour, label=name)
        done_N = done_N + share_N
    axes.set_yticks(place_N, labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper left", ncols=3)
