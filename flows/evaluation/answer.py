"""What an evaluation found: the table, the calibration, and what there were too few documents for.

Arithmetic on what was measured; the model has done its part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ladm.flows.dag.jobs import versions
from ladm.flows.evaluation.request import Question
from ladm.tasks.errors import AccountError
from ladm.tasks.evaluation.contrast_set import CALIBRATE, FEWEST_DOCUMENTS, JUNK, TEST
from ladm.tasks.evaluation.fit import About, calibration_of, real_windows
from ladm.tasks.evaluation.gate import FEWEST_WINDOWS
from ladm.tasks.evaluation.scores import (
    Scores,
    Setting,
    all_scores,
    forward_passes,
    is_one_layer,
    shipped_scores,
)
from ladm.tasks.evaluation.stability import stability
from ladm.tasks.evaluation.table import held_back, table
from ladm.tasks.models.resolve import ResolvedModel
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.stages.scan import Measurement


@dataclass
class Evaluation:
    """What an evaluation found."""

    rows: list[dict[str, Any]]
    """The table of the testing half (of all windows, where an existing calibration is measured)."""
    stability: list[dict[str, Any]]
    costs: list[dict[str, Any]]
    """Of each choice, its forward passes, and seconds a window: that share of a whole pass as measured here with all
    that was asked of it. Not the same on every machine, and not part of the table."""
    calibration: Calibration | None
    """The one made, or the one that was measured."""
    made: bool
    """Whether the calibration was made here."""
    calibrating_rows: list[dict[str, Any]] = field(default_factory=list)
    """The same table of the half that the calibration was made from."""
    held_back: list[dict[str, Any]] = field(default_factory=list)
    """Of each domain, how many real windows of the testing half the gate holds back."""
    lacks: list[str] = field(default_factory=list)
    """What could not be made or told, each with the reason."""


def answered(
    question: Question,
    setting: Setting,
    measured: Sequence[Measurement],
    in_bfloat16: Sequence[Measurement],
    *,
    native: bool,
) -> Evaluation:
    """The table, and the calibration where one is to be made."""
    calibration = question.calibration or _calibration(question, setting, measured)
    scores = all_scores(setting, measured, calibration)
    of_shipped = shipped_scores(setting, measured, question.shipped) if question.shipped else {}
    scores |= of_shipped
    rows = table(setting, measured, scores, question.contrast, TEST)
    calibrating = [] if question.calibration else table(setting, measured, scores, question.contrast, CALIBRATE)
    if calibration and not question.calibration:
        of_calibration = ("calibrated", "calibrated-layers", "dependency", "order")
        told = [row for row in rows if row["formula"] in of_calibration]
        calibration = calibration.model_copy(update={"expected": tuple(told)})
    by_base = {one.base: one for one in in_bfloat16}
    return Evaluation(
        rows,
        stability(setting, measured, by_base, calibration, native=native),
        _costs(setting, scores, measured),
        calibration,
        question.calibration is None,
        calibrating,
        held_back(calibration, setting, measured),
        _lacks(question, measured, calibration, compared=bool(of_shipped)),
    )


def _costs(setting: Setting, scores: Scores, measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    complete = [one.seconds for one in measured if one.half == TEST]
    whole_pass = sum(complete) / len(complete) if complete else float("nan")
    return [
        {
            "scorer": choice.scorer,
            "formula": choice.formula,
            "layers": choice.layers,
            "forward_passes": round(forward_passes(setting, choice), 3),
            "seconds": round(forward_passes(setting, choice) * whole_pass, 2),
        }
        for choice in scores
        if not is_one_layer(choice.formula, choice.layers)
    ]


def _lacks(
    question: Question, measured: Sequence[Measurement], calibration: Calibration | None, *, compared: bool
) -> list[str]:
    """What there were too few documents for, in words for people."""
    lacks = []
    if calibration is None:
        lacks.append(
            f"no calibration was written: no domain has {FEWEST_DOCUMENTS} documents in the calibrating half; "
            f"give more documents, or lower window.length ({question.plan.config.window.length})"
        )
    elif calibration.gate is None and question.calibration is None:
        real = len(real_windows(question.contrast, measured))
        lacks.append(
            f"the calibration has no gate, so junk may win: {real} real windows of texts to fit it on, and "
            f"{FEWEST_WINDOWS} are needed; give more documents, or more --windows"
            + (", or stay with the shipped one" if question.shipped else "")
        )
    elif calibration.gate is None:
        lacks.append("the calibration has no gate, so junk may win; make a new one with `ladm evaluate`")
    if question.shipped and not compared:
        lacks.append(
            "the shipped calibration is not compared: it was made from most of these documents, or reads layers that "
            "the one that is measured does not"
        )
    there = {one.kind for one in measured}
    if missing := [kind for kind in JUNK if kind not in there]:
        lacks.append(f"no window of junk of these kinds, for want of documents: {', '.join(missing)}")
    return lacks


def _calibration(question: Question, setting: Setting, measured: Sequence[Measurement]) -> Calibration | None:
    """The calibration that the calibrating half supports; None where it is empty."""
    half = [one for one in measured if one.half == CALIBRATE]
    if not half:
        return None
    model = model_of(question)
    return calibration_of(setting, question.contrast, half, About(model.reference, model.digest, versions()))


def model_of(question: Question) -> ResolvedModel:
    """The model that is evaluated."""
    if question.plan.model is None:
        raise AccountError("an evaluation without a model")
    return question.plan.model
