"""What an evaluation comes to: the worst contrast of each way to score, and a line that says what to rank by.

A mean over contrasts would hide what decides on a crawl: a score that puts one kind of junk above real text selects
that kind, whatever else it tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ladm.tasks.evaluation.contrast_set import SHUFFLED
from ladm.tasks.evaluation.scores import SHIPPED, is_one_layer
from ladm.tasks.evaluation.table import ALL_DOMAINS

CHANCE = 0.5
"""A scorer whose worst contrast is below this puts the wrong windows above whole ones more often than not."""
ORDER = "order"
_PARTS = (ORDER, "dependency", "calibrated-layers", "random")
"""What no run should be ranked by: parts of a calibration, and chance."""

Named = tuple[str, str, str]
"""Scorer, formula and layers of a choice."""


class Worst(NamedTuple):
    """The worst contrast of one way to score."""

    choice: Named
    row: dict[str, Any]
    """The table's row of that contrast, over all domains."""
    contrasts: int
    """How many contrasts it was measured by."""


def worst_contrasts(rows: Sequence[dict[str, Any]]) -> list[Worst]:
    """The worst contrast of every choice but single layers, the best choice first.

    `shuffled` counts for `order` alone: it asks for order, which no other score is meant to see.
    """
    by_choice: dict[Named, list[dict[str, Any]]] = {}
    for row in rows:
        counts = row["contrast"] != SHUFFLED or row["formula"] == ORDER
        if row["domain"] == ALL_DOMAINS and counts and not is_one_layer(row["formula"], row["layers"]):
            by_choice.setdefault((row["scorer"], row["formula"], row["layers"]), []).append(row)
    found = [Worst(choice, min(own, key=lambda row: row["auc"]), len(own)) for choice, own in by_choice.items()]
    return sorted(found, key=lambda one: (-one.row["auc"], one.choice))


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """What to rank by, and what the published formula is worth beside it."""
    found = worst_contrasts(rows)
    rankable = [one for one in found if one.choice[1] not in _PARTS]
    if not rankable:
        return "verdict: none, since nothing was measured"
    most = max(one.contrasts for one in rankable)
    whole = [one for one in rankable if one.contrasts == most]
    best = max(whole, key=lambda one: (one.row["auc"], one.choice[1] == "calibrated"))
    told = [best]
    told += [one for one in whole if one.choice[1] == "calibrated" and one is not best]
    told += [one for one in whole if one.choice[1] == SHIPPED and one is not best]
    told += [one for one in whole if one.choice == ("ladm", "published", "all") and one is not best]
    name, contrast, auc = _name(best.choice), best.row["contrast"], best.row["auc"]
    if auc >= CHANCE:
        parts = [f"rank by {name}: its worst contrast is {contrast} ({auc:.2f})"]
    else:
        parts = [f"nothing here is fit to rank a crawl; the best is {name}, its worst contrast {contrast} ({auc:.2f})"]
    for one in told[1:]:
        unfit = ", not fit to rank a crawl" if one.row["auc"] < CHANCE <= auc else ""
        parts.append(f"{_name(one.choice)}: {one.row['contrast']} ({one.row['auc']:.2f}){unfit}")
    return "verdict: " + "; ".join(parts)


def _name(choice: Named) -> str:
    scorer, formula, layers = choice
    if formula == "calibrated":
        return "the calibration"
    if formula == SHIPPED:
        return "the shipped calibration, the default"
    if scorer != "ladm":
        return scorer
    return f"{formula}, {'all layers' if layers == 'all' else f'layers {layers}'}"
