"""Evaluation: how well each way to score tells whole windows from broken ones, and the calibration that follows.

All of it is arithmetic on the measurements that `scan.py` kept, without the model. The figure is the area under the
ROC curve (AUC): how often a whole window of a domain scores above a broken one of the same domain, 0.5 being chance.
Intervals are bootstrapped over documents: 95 %, percentiles, seeded.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.tasks.scorers.calibration import Calibration, profile_score
from ladm.tasks.scorers.ladm import LadmConfig, dependency_scores, scoring_plan
from ladm.tasks.stages.contrast import BROKEN, LISTS, TEST, WHOLE, ContrastConfig, is_list
from ladm.tasks.stages.scan import Measurement, fine_plan, halved, paper_config

BESIDE_LAST = {"longattn": 0, "gzip": -1, "random": -1}
"""The last layer that a scorer beside `ladm` runs; the others run the whole model, and snippets on top of it."""
DRAWS = 500
ALL_DOMAINS = "all"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """One way to score a window: a scorer, a formula, and the layers it averages.

    Attributes:
        scorer: `ladm`, or another scorer's name.
        formula: `published`, `no-std`, `paper`; of a calibration, `calibrated` (what documents are ranked by), `order`,
            and `calibrated-layers` (its layers alone, where it ranks by something better).
        layers: As the table names them.
        last: The last layer that has to be run; None: the whole model; -1: none.
    """

    scorer: str
    formula: str
    layers: str
    last: int | None


SINGLY = (("published", "none"), ("no-std", "no-std"))
"""Formulas that are tried in every single layer, with the ablation that each is."""


def is_one_layer(formula: str, layers: str) -> bool:
    """Whether a row, or a choice, is of one of the single layers that a formula is tried in."""
    return layers.isdigit() and formula in dict(SINGLY)


@dataclass(frozen=True)
class Setting:
    """What the measurements were taken with."""

    config: LadmConfig
    length: int
    layers: tuple[int, ...]
    """The layers measured, ascending, N of them."""
    n_layers: int
    """All layers of the model."""
    profile_layers: tuple[int, ...] = ()
    """The layers whose profile was taken, ascending, M of them."""


Scores = dict[Choice, Floats]
"""choice → a score for each measurement."""


def per_layer(setting: Setting, found: Sequence[Measurement], ablation: str, *, fine: bool = False) -> Floats:
    """cds_WN: the published formula's score of each window in each layer; with halved strides where `fine`.

    NaN in the layers that were not measured of a window.
    """
    config = setting.config.model_copy(update={"formula": "published", "ablation": ablation})
    plan = scoring_plan(config, setting.length)
    if fine:
        config, plan = halved(config), fine_plan(config, setting.length)
    pfs_wnp = np.stack([one.fine_nq if fine and one.fine_nq is not None else one.pfs_np for one in found])
    cds_WN: Floats = np.stack([dependency_scores(config, plan, pfs_wp) for pfs_wp in pfs_wnp.swapaxes(0, 1)], axis=1)
    return cds_WN


def all_scores(setting: Setting, found: Sequence[Measurement], calibration: Calibration | None) -> Scores:
    """Every choice that the table compares: whole formulas, thirds of the model, single layers, the calibration."""
    scores: Scores = {}
    n = len(setting.layers)
    thirds = [slice(n * k // 3, n * (k + 1) // 3) for k in range(3)] if n >= 3 else []
    for formula, ablation in SINGLY:
        cds_WN = per_layer(setting, found, ablation)
        scores[Choice("ladm", formula, "all", None)] = cds_WN.mean(axis=1)
        for third in thirds:
            layers = setting.layers[third]
            scores[Choice("ladm", formula, _named(layers), layers[-1])] = cds_WN[:, third].mean(axis=1)
        for place, layer in enumerate(setting.layers):
            scores[Choice("ladm", formula, str(layer), layer)] = cds_WN[:, place]
    paper = paper_config(setting.config)
    plan = scoring_plan(paper, setting.length)
    read = [place for place, one in enumerate(found) if one.paper_nr is not None]
    if read:
        paper_WNR = np.stack([paper_nr for one in found if (paper_nr := one.paper_nr) is not None])
        by_layer = [dependency_scores(paper, plan, pfs_WR) for pfs_WR in paper_WNR.swapaxes(0, 1)]
        scores[Choice("ladm", "paper", "all", None)] = np.full(len(found), np.nan)
        scores[Choice("ladm", "paper", "all", None)][read] = np.mean(by_layer, axis=0)
    if calibration:
        places = [setting.layers.index(layer) for layer in calibration.layers]
        cds_WN = per_layer(setting, found, calibration.ablation)
        formula = "calibrated-layers" if calibration.dependency else "calibrated"
        named = Choice("ladm", formula, _named(calibration.layers), max(calibration.layers))
        scores[named] = cds_WN[:, places].mean(axis=1)
        for name, weights in calibration.weights.items():
            formula = {"dependency": "calibrated", "order": "order"}[name]
            named = Choice("ladm", formula, _named(weights.layers), max(weights.layers))
            scores[named] = np.array([profile_score(weights, one.profile_mhf, setting.profile_layers) for one in found])
    for name in dict.fromkeys(name for one in found for name in one.beside):
        last = BESIDE_LAST.get(name)
        scores[Choice(name, name, "–" if last is not None else "all", last)] = np.array(
            [one.beside.get(name, np.nan) for one in found]
        )
    return scores


def table(
    setting: Setting, found: Sequence[Measurement], scores: Scores, config: ContrastConfig, half: str = TEST
) -> list[dict[str, Any]]:
    """The evaluation's rows: contrast, domain, scorer, formula, layers, AUC with its interval, pairs, cost, half."""
    rows = []
    places: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(found):
        if one.half == half:
            places.setdefault((one.domain, one.kind), []).append(place)
    domains = sorted({domain for domain, _ in places})
    for contrast in (*BROKEN, LISTS):
        against: dict[str, tuple[list[int], list[int]]] = {}
        if contrast == LISTS:
            texts = [place for domain in domains if not is_list(config, domain) for place in places[domain, WHOLE]]
            against = {
                domain: (texts, places[domain, WHOLE]) for domain in domains if is_list(config, domain) and texts
            }
        else:
            against = {domain: (places[domain, WHOLE], places.get((domain, contrast), [])) for domain in domains}
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
                low, high = np.percentile(auc.draws, [2.5, 97.5])
                rows.append(
                    {
                        "contrast": contrast,
                        "domain": domain,
                        "scorer": choice.scorer,
                        "formula": choice.formula,
                        "layers": choice.layers,
                        "auc": round(auc.auc, 4),
                        "auc_low": round(float(low), 4),
                        "auc_high": round(float(high), 4),
                        "pairs": auc.pairs,
                        "forward_passes": round(forward_passes(setting, choice), 3),
                        "half": half,
                    }
                )
    return rows


def forward_passes(setting: Setting, choice: Choice) -> float:
    """What a choice costs, in plain forward passes: layers run ÷ layers.

    Counted, so that a table is the same on every machine; of the last layer only queries and keys are needed, a
    quarter of it. `costs` gives what was measured, and `benchmarks/` the ratio of measured times.
    """
    if choice.last is None:
        return 1.0
    return (choice.last + 0.25) / setting.n_layers if choice.last >= 0 else 0.0


@dataclass(frozen=True)
class _Auc:
    auc: float
    draws: Floats
    pairs: int


def _scored(values: Floats, places: Sequence[int]) -> Floats:
    """The scores at some places, less those that were not measured: a document's windows all were, or none was."""
    found: Floats = values[list(places)]
    return found[~np.isnan(found)]


def _pooled(aucs: Sequence[_Auc]) -> _Auc:
    """All domains together: a whole window is only ever compared with broken ones of its own domain."""
    weights = np.array([one.pairs for one in aucs], dtype=float)
    auc = float(np.average([one.auc for one in aucs], weights=weights))
    draws: Floats = np.average([one.draws for one in aucs], axis=0, weights=weights)
    return _Auc(auc, draws, int(weights.sum()))


def _auc(whole: Floats, broken: Floats, paired: bool, seed: tuple[int, str, str]) -> _Auc:
    """The AUC and its bootstrap draws, over documents: those of a counterpart go with their base where `paired`."""
    above_ij = (whole[:, None] > broken[None]) + 0.5 * (whole[:, None] == broken[None])
    random = np.random.default_rng(zlib.crc32(repr(seed).encode()))
    counts_di = random.multinomial(len(whole), np.full(len(whole), 1 / len(whole)), size=DRAWS)
    counts_dj = counts_di
    if not paired or len(whole) != len(broken):
        counts_dj = random.multinomial(len(broken), np.full(len(broken), 1 / len(broken)), size=DRAWS)
    draws: Floats = ((counts_di @ above_ij) * counts_dj).sum(axis=1) / (len(whole) * len(broken))
    return _Auc(float(above_ij.mean()), draws, above_ij.size)


def spearman(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Spearman's rank correlation; ties get their mean rank. NaN for fewer than three values."""
    import pandas as pd  # noqa: PLC0415

    if len(np.asarray(one)) < 3:
        return float("nan")
    return float(pd.Series(np.asarray(one)).rank().corr(pd.Series(np.asarray(other)).rank()))


def stability(
    setting: Setting,
    found: Sequence[Measurement],
    rounded: Mapping[str, Measurement],
    calibration: Calibration | None,
    *,
    native: bool = True,
) -> list[dict[str, Any]]:
    """How far the ranking of whole windows stays the same, by Spearman's correlation, for each formula.

    Against: strides halved; the model in bfloat16 (`rounded`, by document; `native`: computed, not only rounded so);
    and, for how sure the choice of layers is, the AUC of every single layer from half of the windows against that from
    the other half.
    """
    whole = [one for one in found if one.kind == WHOLE]
    rows = []

    def of(measured: Sequence[Measurement], ablation: str, layers: Sequence[int], *, fine: bool = False) -> Floats:
        places = [setting.layers.index(layer) for layer in layers]
        mean_W: Floats = per_layer(setting, measured, ablation, fine=fine)[:, places].mean(axis=1)
        return mean_W

    formulas = [(formula, ablation, setting.layers) for formula, ablation in SINGLY]
    if calibration:
        formula = "calibrated-layers" if calibration.dependency else "calibrated"
        formulas.append((formula, calibration.ablation, calibration.layers))
    both = [one for one in whole if one.base in rounded]
    name = "bfloat16" if native else "bfloat16 (rounded in float32)"
    for formula, ablation, layers in formulas:
        exact = of(whole, ablation, layers)
        rows.append(_stable(formula, layers, "strides halved", exact, of(whole, ablation, layers, fine=True)))
        if both:
            other = of([rounded[one.base] for one in both], ablation, layers)
            rows.append(_stable(formula, layers, name, of(both, ablation, layers), other))
    if calibration and both:
        for formula, choice in (("calibrated", calibration.dependency), ("order", calibration.order)):
            if choice:
                exact, other = (
                    np.array([profile_score(choice, one.profile_mhf, setting.profile_layers) for one in measured])
                    for measured in (both, [rounded[one.base] for one in both])
                )
                rows.append(_stable(formula, choice.layers, name, exact, other))
    for formula, ablation in SINGLY:
        cds_WN = per_layer(setting, found, ablation)
        halves = [_layer_aucs(found, cds_WN, half) for half in (0, 1)]
        rows.append(_stable(formula, setting.layers, "half the windows: AUC by layer", *halves))
    return rows


def _stable(formula: str, layers: Sequence[int], against: str, one: Floats, other: Floats) -> dict[str, Any]:
    measured = ~np.isnan(one) & ~np.isnan(other)
    one, other = one[measured], other[measured]
    value = spearman(one, other)
    return {
        "formula": formula,
        "layers": _named(layers),
        "against": against,
        "spearman": None if np.isnan(value) else round(value, 4),
        "windows": len(one),
    }


def _layer_aucs(found: Sequence[Measurement], cds_WN: Floats, half: int) -> Floats:
    """Mean over domains of each layer's AUC, whole against spliced, from every other document."""
    numbers: dict[str, dict[str, int]] = {}
    for one in found:
        numbers.setdefault(one.domain, {}).setdefault(one.base, len(numbers.get(one.domain, {})))
    sums = []
    for domain, bases in numbers.items():
        chosen = {
            kind: [
                place
                for place, one in enumerate(found)
                if one.domain == domain and one.kind == kind and bases[one.base] % 2 == half
            ]
            for kind in (WHOLE, BROKEN[0])
        }
        whole_IN, broken_JN = cds_WN[chosen[WHOLE]], cds_WN[chosen[BROKEN[0]]]
        if len(whole_IN) and len(broken_JN):
            measured_IJN = ~np.isnan(whole_IN[:, None]) & ~np.isnan(broken_JN[None])
            above_IJN = (whole_IN[:, None] > broken_JN[None]) & measured_IJN
            pairs_N = measured_IJN.sum(axis=(0, 1))
            sums.append(np.where(pairs_N > 0, above_IJN.sum(axis=(0, 1)) / np.maximum(pairs_N, 1), np.nan))
    if not sums:
        return np.full(cds_WN.shape[1], np.nan)
    there_N = (~np.isnan(sums)).sum(axis=0)
    mean_N: Floats = np.where(there_N > 0, np.nansum(sums, axis=0) / np.maximum(there_N, 1), np.nan)
    return mean_N


def _named(layers: Sequence[int]) -> str:
    """Layers in the table: `14-18`, or `3,7,9`."""
    first, last = min(layers), max(layers)
    if len(layers) > 1 and list(layers) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ",".join(map(str, layers))
