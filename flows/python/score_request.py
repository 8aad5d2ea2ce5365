"""By what texts are scored from Python: the model, the calibration that fits, or the formula, all checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from ladm.flows.complaints import explain
from ladm.flows.config import FITTING, ScorerConfig
from ladm.tasks.errors import ConfigError, ModelError
from ladm.tasks.models.facts import ModelFacts, model_facts
from ladm.tasks.models.resolve import ResolvedModel, resolve_model
from ladm.tasks.scorers.calibration import Calibration, Weights
from ladm.tasks.scorers.gate import Gate
from ladm.tasks.scorers.ladm import CALIBRATED, LadmConfig, check_window_length, measured_layers
from ladm.tasks.scorers.loaded_calibration import fitting_calibration, load_calibration
from ladm.tasks.scorers.loaded_model import (
    calculator_for,
    check_device,
    in_fast_precision,
    resolved_scorer,
    text_reader,
)
from ladm.tasks.scorers.registry import BesideConfig
from ladm.tasks.scorers.spans import span_of
from ladm.tasks.tokenizing.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ladm.tasks.scorers.model_turns import Turns


@dataclass(frozen=True)
class Request:
    """What is asked of the model."""

    scorer: LadmConfig
    """With its layers settled, and with what the gate needs beside it."""
    resolved: ResolvedModel
    facts: ModelFacts
    calibration: Calibration | None

    @property
    def gate(self) -> Gate | None:
        """What tells real text from junk."""
        return self.calibration.gate if self.calibration else None

    @property
    def weights(self) -> Weights:
        """The calibration's."""
        return self.calibration.weights if self.calibration else Weights()

    @cached_property
    def text_of(self) -> Callable[[npt.NDArray[np.integer]], str] | None:
        """Decodes token ids, where the gate reads text."""
        return text_reader(self.scorer.model, self.resolved.tokenizer_digest) if self.gate else None

    def tokenizer(self) -> Tokenizer:
        """The model's.

        Raises:
            ModelError: It has none.
        """
        if self.resolved.tokenizer_digest is None:
            raise ModelError(f"model: {self.scorer.model!r} has no tokenizer; give token ids in place of texts")
        tokenizer: Tokenizer = load_tokenizer(self.resolved)
        return tokenizer

    def calculator(self) -> tuple[Any, Turns]:
        """The model, loaded once a process."""
        return calculator_for(self.scorer, self.resolved.digest)


def request_of(model: str, window: int, layers: str | Sequence[int], settings: dict[str, Any]) -> Request:
    """Check what is asked.

    Raises:
        UserError: One line that names the setting and the fix.
    """
    chosen = tuple(layers) if not isinstance(layers, str) else layers
    scorer = _validated({**settings, "model": str(model), "layers": chosen})
    check_device(scorer.device)
    resolved = resolve_model(scorer.model)
    facts = model_facts(resolved)
    if facts.max_positions is not None and window > facts.max_positions:
        raise ConfigError(f"window: {window} is more than the {facts.max_positions} positions of {scorer.model!r}")
    calibration = None
    if scorer.layers == FITTING:
        calibration = fitting_calibration(scorer, resolved.digest, window)
        scorer = scorer.model_copy(update={"layers": CALIBRATED if calibration else "all"})
    elif scorer.layers == CALIBRATED:
        calibration = load_calibration(scorer.calibration, scorer.model, resolved.digest, window)
    if calibration is not None:
        settled: LadmConfig = in_fast_precision(calibration.applied(scorer))
    else:
        settled = scorer if "span" in settings else scorer.model_copy(update={"span": span_of(window)})
    check_window_length(settled, window)
    settled = resolved_scorer(settled).model_copy(update={"layers": tuple(measured_layers(settled, facts, window))})
    if calibration is not None and calibration.gate is not None:
        if resolved.tokenizer_digest is None:
            raise ModelError(f"model: {scorer.model!r} has no tokenizer, which the calibration's gate reads text by")
        beside = {"text": {}, "attention": {"layers": calibration.layers, "profile": calibration.gate.layers}}
        settled = settled.model_copy(update={"beside": BesideConfig.model_validate(beside)})
    return Request(settled, resolved, facts, calibration)


def _validated(settings: dict[str, Any]) -> ScorerConfig:
    try:
        return ScorerConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(explain(error, ScorerConfig)) from None
