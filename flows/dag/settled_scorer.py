"""The scorer of a run, once it is settled by which calibration it scores, or by which layers without one."""

from __future__ import annotations

from collections.abc import Collection

from ladm.flows.config import FITTING, OWN, RunConfig
from ladm.flows.dag.calibrating import can_be_calibrated
from ladm.tasks.condition import check_columns_are_made
from ladm.tasks.errors import ConfigError
from ladm.tasks.models.resolve import ResolvedModel
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.distance_profile import CELLS
from ladm.tasks.scorers.ladm import CALIBRATED, LadmConfig
from ladm.tasks.scorers.loaded_calibration import fitting_calibration, load_calibration
from ladm.tasks.scorers.loaded_model import in_fast_precision
from ladm.tasks.scorers.spans import span_of


def with_calibration(config: RunConfig, model: ResolvedModel) -> tuple[RunConfig, Calibration | None]:
    """The configuration with its choice of layers settled, and the calibration that it means, if any."""
    scorer: LadmConfig = config.scorer
    length, calibration = config.window.length, None
    if scorer.layers == FITTING:
        calibration = fitting_calibration(scorer, model.digest, length)
        without = OWN if can_be_calibrated(scorer, length) else "all"
        scorer = scorer.model_copy(update={"layers": CALIBRATED if calibration else without})
    elif scorer.layers == OWN and not can_be_calibrated(scorer, length):
        raise ConfigError(
            f"scorer.layers: own needs formula: published, no ablation, and windows of {CELLS} tokens or more; set "
            "scorer.layers=all, or leave these out"
        )
    elif scorer.layers == CALIBRATED:
        calibration = load_calibration(scorer.calibration, scorer.model, model.digest, length)
    if calibration:
        scorer = calibration.stated(scorer)
    if scorer.layers == OWN and "span" not in scorer.model_fields_set:
        scorer = scorer.model_copy(update={"span": span_of(length)})
    if calibration or scorer.layers == OWN:
        scorer = in_fast_precision(scorer)
    config = config.model_copy(update={"scorer": scorer})
    given: tuple[str, ...] | None = ("dependency", "gate") if scorer.layers == OWN else None
    if calibration:
        given = (*calibration.gives, *(["gate"] if calibration.gate else []))
    check_rank_by(config, given)
    check_columns_are_made(config.select.where, scorer.beside.names, given or ())
    return config, calibration


def measuring_scorer(scorer: LadmConfig, calibration: Calibration | None) -> LadmConfig:
    """The scorer with the layers that are measured: a calibration's, or those that the run's own is chosen from."""
    if calibration:
        return calibration.applied(scorer)
    return scorer.model_copy(update={"layers": "all"}) if scorer.layers == OWN else scorer


def check_rank_by(config: RunConfig, by_calibration: Collection[str] | None) -> None:
    """Refuse to rank by a score that neither the calibration, if there is one, nor a scorer beside it gives."""
    by = config.select.rank_by
    given = (
        "ladm",
        *(name for name in by_calibration or () if name in ("dependency", "order")),
        *config.scorer.beside.names,
    )
    if by in given:
        return
    if by_calibration is None:
        raise ConfigError("select.rank_by: order comes with a calibration; set scorer.layers=calibrated")
    which = repr(config.scorer.calibration) if config.scorer.calibration else "the shipped one"
    raise ConfigError(
        f"select.rank_by: {by} is not given by the calibration ({which}); rank by {' or '.join(given)}, or make "
        f"one that has it with `ladm evaluate`"
    )
