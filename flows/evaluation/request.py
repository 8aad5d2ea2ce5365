"""What `ladm evaluate` is asked, checked before any work: the corpus, the model, the contrast set, the calibration."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ladm.flows.complaints import explain
from ladm.flows.config import RunConfig
from ladm.flows.console import Console
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.preflight import check_device_is_here, check_model, preflight
from ladm.tasks.errors import ConfigError
from ladm.tasks.evaluation.contrast_set import TEST, ContrastConfig
from ladm.tasks.models.facts import model_facts
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.distance_profile import CELLS
from ladm.tasks.scorers.ladm import LadmConfig, check_window_length
from ladm.tasks.scorers.loaded_calibration import fitting_calibration, load_calibration
from ladm.tasks.scorers.loaded_model import resolved_scorer
from ladm.tasks.scorers.registry import SCORES, BesideConfig
from ladm.tasks.scorers.spans import span_of


@dataclass(frozen=True)
class Question:
    """What is asked of an evaluation."""

    plan: Plan
    layers: tuple[int, ...]
    """All layers that see the whole window, ascending."""
    n_layers: int
    contrast: ContrastConfig
    calibration: Calibration | None
    """One to measure; None: make one."""
    shipped: Calibration | None
    """The one that a run takes by default, where one is shipped, to compare with."""
    beside: BesideConfig
    """The scorers to compare with: all, with the configuration's settings or their defaults."""
    device: str
    thorough: bool
    """Whether the scorers beside `ladm` score all testing documents, not only some."""
    console: Console


def question_of(
    config: RunConfig, contrast: dict[str, Any], calibration: str | None, out: str, thorough: bool, console: Console
) -> Question:
    """The question, once it is found possible to answer it.

    Args:
        config: The run's configuration; of the scorer, its model and spans count.
        contrast: Settings of `ContrastConfig`; None leaves the default.
        calibration: Path of a calibration to measure.
        out: Folder for the results.
        thorough: Whether the scorers beside `ladm` score all testing documents.
        console: Told of downloads.

    Raises:
        UserError: One line that names the field and the fix.
    """
    settings = _contrast_config(contrast)
    check_device_is_here(config)
    length = config.window.length
    scorer: LadmConfig = config.scorer.model_copy(
        update={"formula": "published", "layers": "all", "calibration": None, "ablation": "none"}
    )
    if "span" not in config.scorer.model_fields_set:
        scorer = scorer.model_copy(update={"span": span_of(length)})
    check_window_length(scorer, length)
    if length < CELLS:
        raise ConfigError(f"window.length: {length} tokens are too few to evaluate; set it to {CELLS} or more")
    _check_folder(out)
    config = config.model_copy(update={"scorer": scorer})
    plan = preflight(config, "tokenize", console.say)
    model = plan.model
    assert model is not None
    facts = model_facts(model)
    layers, _ = check_model(scorer, length, facts)
    found = None
    if calibration is not None:
        found = load_calibration(calibration, model.reference, model.digest, length)
        scorer = found.applied(scorer.model_copy(update={"ablation": found.ablation}))
        plan = dataclasses.replace(plan, config=config.model_copy(update={"scorer": scorer}))
        settings = settings.model_copy(update={"half": TEST, "exclude": found.documents})
    made_with = LadmConfig(span=scorer.span, d_afs=scorer.d_afs, d_cds=scorer.d_cds)
    shipped = fitting_calibration(made_with, model.digest, length)
    beside: dict[str, Any] = {name: {} for name in SCORES} | {"longattn": {"layer": layers[0]}}
    beside |= config.scorer.beside.model_dump(exclude_none=True)
    every = BesideConfig.model_validate(beside)
    device = resolved_scorer(scorer).device
    known = (found, None if shipped == found else shipped)
    return Question(plan, tuple(layers), facts.n_layers, settings, *known, every, device, thorough, console)


def _check_folder(out: str) -> None:
    """Make the folder for the results, or refuse it."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ConfigError(f"--out: {out!r} cannot be written ({error.strerror}); give another folder") from None


def _contrast_config(given: dict[str, Any]) -> ContrastConfig:
    try:
        settings = ContrastConfig.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(f"--{explain(error, ContrastConfig)}") from None
    try:
        re.compile(settings.lists)
    except re.error as error:
        raise ConfigError(f"--lists: {settings.lists!r} is not a regular expression ({error})") from None
    return settings
