"""The table of an evaluation: how often each way to score puts a whole window above one that must score below it.

The figure is the area under the ROC curve (AUC): how often a whole window of a domain scores above a broken one, or one
of junk, of the same domain, 0.5 being chance. Intervals are bootstrapped over documents: 95 %, percentiles, seeded.

Dimensions in names: I whole windows, J others, D draws.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ladm.tasks.evaluation.contrast_set import CONTRASTS, LISTS, TEST, WHOLE, ContrastConfig, is_list
from ladm.tasks.evaluation.scores import Floats, Scores, Setting, coherent, forward_passes, unlikeness
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.stages.scan import Measurement

DRAWS = 500
FEWEST_TOLD = 3
"""Documents on either side below which no interval is told."""
FEWEST_ALIKE = 20
"""Where all draws are alike, as they are at an AUC of 1, fewer documents than these do not tell an interval."""
ALL_DOMAINS = "all"


def table(
    setting: Setting, found: Sequence[Measurement], scores: Scores, config: ContrastConfig, half: str = TEST
) -> list[dict[str, Any]]:
    """The evaluation's rows: contrast, domain, scorer, formula, layers, AUC with its interval, pairs, cost, half.

    The interval is None where it cannot be told.
    """
    rows = []
    places: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(found):
        if one.half == half:
            places.setdefault((one.domain, one.kind), []).append(place)
    for contrast in CONTRASTS:
        against = _against(contrast, places, config)
        for choice, values in scores.items():
            aucs = {
                domain: _auc(_scored(values, whole), _scored(values, broken), contrast != LISTS, seed)
                for domain, (whole, broken) in against.items()
                if len(_scored(values, whole)) and len(_scored(values, broken))
                for seed in [(config.seed, contrast, domain)]
            }
            if not aucs:
                continue
            for domain, auc in [*aucs.items(), (ALL_DOMAINS, _pooled(list(aucs.values())))]:
                low, high = auc.interval()
                rows.append(
                    {
                        "contrast": contrast,
                        "domain": domain,
                        "scorer": choice.scorer,
                        "formula": choice.formula,
                        "layers": choice.layers,
                        "auc": round(auc.auc, 4),
                        "auc_low": low,
                        "auc_high": high,
                        "pairs": auc.pairs,
                        "forward_passes": round(forward_passes(setting, choice), 3),
                        "half": half,
                    }
                )
    return rows


def _against(
    contrast: str, places: Mapping[tuple[str, str], list[int]], config: ContrastConfig
) -> dict[str, tuple[list[int], list[int]]]:
    """Domain → the places of the windows that are to score above, and of those that are to score below."""
    domains = sorted({domain for domain, _ in places})

    def of(domain: str, kind: str) -> list[int]:
        return places.get((domain, kind), [])

    if contrast != LISTS:
        return {domain: (of(domain, WHOLE), of(domain, contrast)) for domain in domains}
    texts = [place for domain in domains if not is_list(config, domain) for place in of(domain, WHOLE)]
    return {domain: (texts, of(domain, WHOLE)) for domain in domains if is_list(config, domain)}


@dataclass(frozen=True)
class _Auc:
    auc: float
    draws: Floats
    pairs: int
    documents: int
    """On the side with fewer of them."""

    def interval(self) -> tuple[float | None, float | None]:
        """The interval; None where there are too few documents to tell it."""
        alike = bool(np.ptp(self.draws) == 0)
        if self.documents < (FEWEST_ALIKE if alike else FEWEST_TOLD):
            return None, None
        low, high = np.percentile(self.draws, [2.5, 97.5])
        return round(float(low), 4), round(float(high), 4)


def _scored(values: Floats, places: Sequence[int]) -> Floats:
    """The scores at some places, less those that were not measured: a document's windows all were, or none was."""
    found: Floats = values[list(places)]
    return found[~np.isnan(found)]


def _pooled(aucs: Sequence[_Auc]) -> _Auc:
    """All domains together: a whole window is only ever compared with broken ones of its own domain."""
    weights = np.array([one.pairs for one in aucs], dtype=float)
    auc = float(np.average([one.auc for one in aucs], weights=weights))
    draws: Floats = np.average([one.draws for one in aucs], axis=0, weights=weights)
    return _Auc(auc, draws, int(weights.sum()), sum(one.documents for one in aucs))


def _auc(whole: Floats, broken: Floats, paired: bool, seed: tuple[int, str, str]) -> _Auc:
    """The AUC and its bootstrap draws, over documents: those of a counterpart go with their base where `paired`."""
    above_ij = (whole[:, None] > broken[None]) + 0.5 * (whole[:, None] == broken[None])
    random = np.random.default_rng(zlib.crc32(repr(seed).encode()))
    counts_di = random.multinomial(len(whole), np.full(len(whole), 1 / len(whole)), size=DRAWS)
    counts_dj = counts_di
    if not paired or len(whole) != len(broken):
        counts_dj = random.multinomial(len(broken), np.full(len(broken), 1 / len(broken)), size=DRAWS)
    draws: Floats = ((counts_di @ above_ij) * counts_dj).sum(axis=1) / (len(whole) * len(broken))
    return _Auc(float(above_ij.mean()), draws, above_ij.size, min(above_ij.shape))


def held_back(calibration: Calibration | None, setting: Setting, found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """How many real windows of each domain of the testing half the gate holds back; empty without a gate."""
    gate = calibration.gate if calibration else None
    whole = [one for one in found if one.kind == WHOLE and one.half == TEST]
    if calibration is None or gate is None or not whole:
        return []
    coherent_WE = coherent(setting, whole, calibration.weights)
    out_W = unlikeness(gate, whole, setting.profile_layers, coherent_WE) > gate.threshold
    rows = []
    for domain in sorted({one.domain for one in whole}):
        places = [place for place, one in enumerate(whole) if one.domain == domain]
        rows.append({"domain": domain, "held_back": int(out_W[places].sum()), "windows": len(places)})
    return rows
