"""A run's own calibration: the best that its few windows give, with the help of a shipped one.

Of the model at another length, a shipped calibration is carried over (`carry_over.py`). Of another model, its gate
lends its view of the text, which hardly depends on the model (`gate.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ladm.tasks.evaluation import sample_windows
from ladm.tasks.evaluation.carry_over import can_be_carried, carried_over, centred_on
from ladm.tasks.evaluation.contrast_set import CALIBRATE, WHOLE, ContrastConfig
from ladm.tasks.evaluation.fit import About, calibration_of, profiled_layers
from ladm.tasks.evaluation.gate import fit_gate, windows_of
from ladm.tasks.evaluation.reference import real_text
from ladm.tasks.evaluation.scores import (
    Choice,
    Floats,
    Scores,
    Setting,
    calibrated_scores,
    coherent,
    features_of,
    features_read,
    named_layers,
)
from ladm.tasks.evaluation.table import ALL_DOMAINS, table
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.stages.scan import Measurement

Fit = Callable[[Sequence[Measurement]], Calibration]
"""Makes a calibration of measurements."""
HOLDS_NOTHING_BACK = 1e9
"""The threshold of a run's own gate: it rests on few windows, so what is unlike real text loses in rank, and no more.
`select.gate` sets another."""
FOLDS = 4
"""Parts of the documents that are left out in turn, to tell what the calibration is worth."""
FEWEST_TRUSTED = 8
"""Windows of the sample that are enough to tell levels by."""
CLEARLY = 0.02
"""By so much more of mean AUC a calibration fitted on the run's windows alone has to tell whole windows from others, to
be taken instead of one that is carried over: that one rests on more windows than it is compared by."""


class Found(NamedTuple):
    """A calibration, with what it was worth on documents that it had not seen."""

    calibration: Calibration
    rows: list[dict[str, Any]]

    @property
    def worth(self) -> float:
        """The mean AUC over the contrasts."""
        return float(np.mean([row["auc"] for row in rows_that_rank(self.rows)] or [0.0]))


def of_real_text(
    setting: Setting, found: Sequence[Measurement], digest: str, lender: Calibration
) -> tuple[list[Measurement], list[Measurement]]:
    """The measurements of windows that are made of real text alone, and those of whole windows among them."""
    whole = [one for one in found if one.kind == WHOLE]
    if not whole:
        return [], []
    trusted_W = np.array([one.domain.startswith(sample_windows.DOMAINS) for one in whole])
    known = lender.gate
    if known and _is_of(lender, digest, setting):
        read = features_read(known, whole, setting.profile_layers, coherent(setting, whole, lender.weights))
        real_W = real_text(lambda some: centred_on(known, some), windows_of(read, whole), trusted_W, known)
    else:
        layers = profiled_layers(setting)
        read = np.stack([features_of(one, layers, setting.profile_layers) for one in whole])
        real_W = real_text(lambda some: fit_gate(layers, some, known), windows_of(read, whole), trusted_W)
    junk = {one.base for one, real in zip(whole, real_W, strict=True) if not real}
    used = [one for one in found if not junk.intersection(one.documents)]
    return used, [one for one in used if one.kind == WHOLE]


def best_calibration(
    setting: Setting, config: ContrastConfig, used: Sequence[Measurement], about: About, lender: Calibration
) -> Found:
    """The lender carried over where it can be, or a calibration fitted on the windows where that is clearly better.

    Args:
        setting: What the windows were measured with.
        config: How they were made.
        used: Their measurements (`of_real_text`).
        about: The model, and the versions of what computes.
        lender: A shipped calibration, of the model where there is one.
    """

    def own(windows: Sequence[Measurement]) -> Calibration:
        fitted = calibration_of(setting, config, windows, about, lender.gate)
        gate = fitted.gate and fitted.gate.model_copy(update={"threshold": HOLDS_NOTHING_BACK})
        return fitted.model_copy(update={"gate": gate})

    def carried(windows: Sequence[Measurement]) -> Calibration:
        made = carried_over(lender, setting, _that_set_levels(windows))
        of = {"carried_from": lender.window_length}
        return made.model_copy(update={"model": about.model, "versions": about.versions, "made_from": of})

    def tried(fit: Fit) -> Found:
        return Found(fit(used), table(setting, used, _left_out(setting, used, fit), config, CALIBRATE))

    of_these = tried(own)
    if not _is_of(lender, about.digest, setting):
        return of_these
    of_shipped = tried(carried)
    return of_these if of_these.worth > of_shipped.worth + CLEARLY else of_shipped


def _that_set_levels(windows: Sequence[Measurement]) -> list[Measurement]:
    """The whole windows of the sample, so that no junk of the corpus has a say; all where the sample has too few."""
    whole = [one for one in windows if one.kind == WHOLE]
    trusted = [one for one in whole if one.domain.startswith(sample_windows.DOMAINS)]
    return trusted if len(trusted) >= FEWEST_TRUSTED else whole


def _is_of(lender: Calibration, digest: str, setting: Setting) -> bool:
    """Whether the lender can be carried over: it is of the model, and reads what was measured."""
    return lender.model_digest == digest and can_be_carried(lender, setting.profile_layers, setting.topic_layer)


def rows_that_rank(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a table, the rows of what documents are ranked by, over all domains: one a contrast."""
    return [row for row in rows if row["formula"] == "calibrated" and row["domain"] == ALL_DOMAINS]


def _left_out(setting: Setting, used: Sequence[Measurement], fit: Fit) -> Scores:
    """The scores of each window by a calibration that has not seen the window of its document.

    Nothing where the rest of the documents is too few to calibrate on.
    """
    documents = sorted({one.base for one in used})
    fold_of = {document: number % FOLDS for number, document in enumerate(documents)}
    scores: dict[str, Floats] = {}
    for fold in range(FOLDS):
        out = [place for place, one in enumerate(used) if fold_of[one.base] == fold]
        rest = [one for one in used if fold_of[one.base] != fold]
        if not out or not any(one.kind == WHOLE for one in rest):
            continue
        fitted = fit(rest)
        if fitted.gate is None:
            continue
        found = calibrated_scores(setting, [used[place] for place in out], fitted)
        for choice, values in found.items():
            scores.setdefault(choice.formula, np.full(len(used), np.nan))[out] = values
    named, last = named_layers(setting.profile_layers), max(setting.profile_layers)
    return {Choice("ladm", formula, named, last): values for formula, values in scores.items()}
