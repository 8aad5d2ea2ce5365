"""The scores of measured windows, by every way to score that an evaluation compares.

All of it is arithmetic on the measurements that `scan.py` kept, without the model.

Dimensions in names: W windows, N layers measured, P pairs of spans, R of the paper's plan, M layers of the profile,
H heads, F features of the profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.tasks.scorers.calibration import Calibration, Weights
from ladm.tasks.scorers.coherence import Seen
from ladm.tasks.scorers.distance_profile import profile_plan
from ladm.tasks.scorers.gate import Gate, gate_distances, gate_features, ranking_score
from ladm.tasks.scorers.ladm import LadmConfig, dependency_scores, scoring_plan
from ladm.tasks.stages.scan import Measurement, fine_plan, halved, paper_config

BESIDE_LAST = {"longattn": 0, "gzip": -1, "random": -1}
"""The last layer that a scorer beside `ladm` runs; the others run the whole model, and snippets on top of it."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """One way to score a window: a scorer, a formula, and the layers it averages.

    Attributes:
        scorer: `ladm`, or another scorer's name.
        formula: `published`, `no-std`, `paper`; of a calibration, `calibrated` (what documents are ranked by), `order`,
            `dependency` (without its gate), and `calibrated-layers` (its layers alone, where it ranks by something
            better); `shipped`, what the calibration that a run takes by default ranks by.
        layers: As the table names them.
        last: The last layer that has to be run; None: the whole model; -1: none.
    """

    scorer: str
    formula: str
    layers: str
    last: int | None


SHIPPED = "shipped"
"""The formula of the calibration that a run takes by default, where it is not the one that is made or measured."""
MOST_SEEN = 0.5
"""Share of windows that the shipped calibration may have seen and be compared: the rest must tell something."""
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
    topic_layer: int | None = None
    """The layer whose states were kept."""


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
            scores[Choice("ladm", formula, named_layers(layers), layers[-1])] = cds_WN[:, third].mean(axis=1)
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
        scores |= calibrated_scores(setting, found, calibration)
    for name in dict.fromkeys(name for one in found for name in one.beside):
        last = BESIDE_LAST.get(name)
        scores[Choice(name, name, "–" if last is not None else "all", last)] = np.array(
            [one.beside.get(name, np.nan) for one in found]
        )
    return scores


def calibrated_scores(setting: Setting, found: Sequence[Measurement], calibration: Calibration) -> Scores:
    """The scores that come of a calibration: `calibrated` is what documents are ranked by.

    Where there is a gate, a window that it holds back gets less than any other; and what the others have is the ranking
    score, dependency less the penalty for unlikeness, or the formula's score where there is no dependency. `dependency`
    is the same without the gate.
    """
    layers = setting.profile_layers
    cds_W = per_layer(setting, found, calibration.ablation)[:, [setting.layers.index(n) for n in calibration.layers]]
    scores: Scores = {}

    def add(formula: str, of: Sequence[int], values: Floats) -> None:
        scores[Choice("ladm", formula, named_layers(of), max(of))] = values

    weights = calibration.weights
    coherent_WE = coherent(setting, found, weights)
    given = [weights.scores(one.profile_mhf, of, layers) for one, of in zip(found, coherent_WE, strict=True)]
    dependency_W = np.array([one["dependency"] for one in given if "dependency" in one])
    gate, own, read = calibration.gate, cds_W.mean(axis=1), list(calibration.layers)
    if len(dependency_W) == len(given):
        add("calibrated-layers", read, own)
        of_it = weights.model_copy(update={"sums": {k: v for k, v in weights.sums.items() if k != "order"}})
        own, read = dependency_W, list(of_it.layers)
    if gate is None:
        add("calibrated", read, own)
    else:
        unlike_W = unlikeness(gate, found, layers, coherent_WE)
        if own is dependency_W:
            add("dependency", read, own)
            ranked = zip(dependency_W.tolist(), unlike_W.tolist(), strict=True)
            own = np.array([ranking_score(gate, *one) for one in ranked])
        add("calibrated", sorted({*read, *gate.layers}), np.where(unlike_W > gate.threshold, -np.inf, own))
    if calibration.order:
        add("order", calibration.order.layers, np.array([one["order"] for one in given]))
    return scores


def shipped_scores(setting: Setting, found: Sequence[Measurement], shipped: Calibration) -> Scores:
    """What documents are ranked by in a run that is told of no other calibration: `shipped`.

    NaN for windows of documents that it was made from; nothing where those are most of them, or where what it reads was
    not measured.
    """
    seen = set(shipped.documents)
    seen_W = np.array([not seen.isdisjoint({one.base, *one.documents}) for one in found])
    if seen_W.mean() > MOST_SEEN or not reads_only(shipped, setting.profile_layers, setting.topic_layer):
        return {}
    return {
        Choice("ladm", SHIPPED, choice.layers, choice.last): np.where(seen_W, np.nan, values)
        for choice, values in calibrated_scores(setting, found, shipped).items()
        if choice.formula == "calibrated"
    }


def reads_only(calibration: Calibration, profile_layers: Sequence[int], topic_layer: int | None) -> bool:
    """Whether what is measured of windows, in these layers, is all that a calibration reads."""
    states_of = calibration.weights.states_of
    return set(calibration.profiled) <= set(profile_layers) and states_of in (None, topic_layer)


def unlikeness(
    gate: Gate,
    found: Sequence[Measurement],
    layers: Sequence[int],
    coherent_WE: Sequence[npt.NDArray[np.floating]],
) -> Floats:
    """The gate's distance of each window, whose profile was taken of `layers`; `coherent_WE`: see `coherent`."""
    return gate_distances(gate, features_read(gate, found, layers, coherent_WE))


def features_read(
    gate: Gate,
    found: Sequence[Measurement],
    layers: Sequence[int],
    coherent_WE: Sequence[npt.NDArray[np.floating]],
) -> Floats:
    """feature_WG: what the gate reads of each window, whose profile was taken of `layers`."""
    return np.stack(
        [
            features_of(one, gate.layers, layers, coherent_E if gate.coherence else ())
            for one, coherent_E in zip(found, coherent_WE, strict=True)
        ]
    )


def coherent(setting: Setting, found: Sequence[Measurement], weights: Weights) -> list[npt.NDArray[np.float32]]:
    """The features of coherence of each window; empty without coherence."""
    plan = profile_plan(setting.length)
    return [
        weights.coherent(plan, Seen(one.share_mhp, one.vocabulary_v, one.state_sz), setting.profile_layers)
        for one in found
    ]


def features_of(
    one: Measurement,
    wanted: Sequence[int],
    layers: Sequence[int],
    coherent_E: npt.NDArray[np.floating] | Sequence[float] = (),
) -> Floats:
    """What a gate of the layers `wanted` reads of a window, whose profile was taken of `layers`."""
    places = [layers.index(layer) for layer in wanted]
    return gate_features(one.profile_mhf[places].astype(np.float64).mean(axis=1), one.text, coherent_E)


def forward_passes(setting: Setting, choice: Choice) -> float:
    """What a choice costs, in plain forward passes: layers run ÷ layers.

    Counted, so that a table is the same on every machine; of the last layer only queries and keys are needed, a
    quarter of it. `costs` gives what was measured, and `benchmarks/` the ratio of measured times.
    """
    if choice.last is None:
        return 1.0
    return (choice.last + 0.25) / setting.n_layers if choice.last >= 0 else 0.0


def named_layers(layers: Sequence[int]) -> str:
    """Layers in the table: `14-18`, or `3,7,9`."""
    first, last = min(layers), max(layers)
    if len(layers) > 1 and list(layers) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ",".join(map(str, layers))
