"""A calibration: which layers of one model, at one window length, tell whole documents from broken ones.

`ladm evaluate` makes it from the user's corpus and writes it as JSON; `scorer: {layers: calibrated, calibration: PATH}`
scores by it. Its scores come out of the one pass:

- *cds*: the published formula, with or without its standard deviation, over the layers that tell whole windows from
  spliced ones best;
- *dependency*, by which documents are ranked where there is one: how coherent a window is (`coherence.py`),
  with sums over the profile of attention by distance (`distance_profile.py`): the least of these counts most (a soft
  minimum); in older calibrations one such sum;
- *order*: another weighted sum, over the whole profile, which tells whole windows from their own pieces in another
  order. Dependency is blind to that, and order to splices, so neither replaces the other.

A *gate* (`gate.py`) says how unlike real text a window is; what is unlike it loses in rank, or is not ranked at all.

A calibration holds for its model (by digest), its window length and its spans, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from ladm.tasks.errors import ConfigError
from ladm.tasks.scorers.coherence import Coherence, Seen
from ladm.tasks.scorers.distance_profile import FEATURES
from ladm.tasks.scorers.gate import Gate, soft_minimum
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.spans import SpanPlan
from ladm.tasks.settings import Settings

VERSION = 1


class ProfileWeights(Settings):
    """What an order score adds up, or an older dependency."""

    layers: tuple[int, ...]
    """N layers, from 0, ascending."""
    features: tuple[str, ...] = FEATURES
    """F features of the profile."""
    weights: tuple[tuple[tuple[float, ...], ...], ...]
    """w_NHF: a weight a layer, head and feature."""
    offset: float = 0.0
    """Added to the sum."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> ProfileWeights:
        if self.features != FEATURES:
            raise ValueError("the profile's features are not those of this version; run `ladm evaluate` again")
        shapes = {(len(layer), len(head)) for layer in self.weights for head in layer}
        if len(self.weights) != len(self.layers) or len({heads for heads, _ in shapes}) != 1:
            raise ValueError("weights do not fit layers and heads")
        if {features for _, features in shapes} != {len(self.features)}:
            raise ValueError("weights do not fit features")
        return self


class Weights(Settings):
    """What the scores of a calibration are made with, beside the formula's: `dependency`, `order`."""

    sums: dict[str, ProfileWeights] = Field(default_factory=dict)
    """Score → weights over the profile."""
    coherence: Coherence | None = None
    """What makes `dependency`, where it is not one of the sums."""
    against: dict[str, ProfileWeights] = Field(default_factory=dict)
    """Further parts of `dependency`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The scores."""
        return (*(("dependency",) if self.coherence or self.against else ()), *self.sums)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers in which the profile's cells have to be measured, ascending."""
        of_pairs = self.coherence.pairs.layers if self.coherence else ()
        sums = (*self.sums.values(), *self.against.values())
        return tuple(sorted({*of_pairs, *(layer for one in sums for layer in one.layers)}))

    @property
    def states_of(self) -> int | None:
        """The layer whose states have to be kept."""
        return self.coherence.topics.layer if self.coherence and self.coherence.topics else None

    def coherent(self, plan: SpanPlan, seen: Seen, layers: Sequence[int]) -> npt.NDArray[np.float32]:
        """The features of coherence of one window; none without coherence.

        Args:
            plan: The profile's.
            seen: What was measured of the window, the shares in M `layers`.
            layers: Those.
        """
        if self.coherence is None:
            return np.zeros(0, np.float32)
        places = [layers.index(layer) for layer in self.coherence.pairs.layers]
        return self.coherence.features(plan, seen._replace(share_nhp=seen.share_nhp[places]))

    def scores(
        self,
        profile_MHF: npt.NDArray[np.floating],
        coherent_E: npt.NDArray[np.floating],
        layers: Sequence[int],
    ) -> dict[str, float]:
        """The scores of one window.

        Args:
            profile_MHF: The window's profile.
            coherent_E: Its features of coherence (`coherent`).
            layers: The M layers that the profile was measured in.
        """
        scores = {name: profile_score(one, profile_MHF, layers) for name, one in self.sums.items()}
        parts = [profile_score(one, profile_MHF, layers) for one in self.against.values()]
        if self.coherence:
            parts += self.coherence.parts(coherent_E).values()
        return scores | ({"dependency": soft_minimum(parts)} if parts else {})


class Calibration(Settings):
    """What `ladm evaluate` found out about one model at one window length."""

    version: int = VERSION
    model: str
    """The model's reference, for people."""
    model_digest: str
    window_length: int
    span: int
    d_afs: int
    d_cds: int
    layers: tuple[int, ...] = Field(min_length=1)
    """Layers of the formula, from 0."""
    ablation: str = Field(pattern="^(none|no-std)$")
    """Whether the formula keeps the standard deviation."""
    dependency: ProfileWeights | None = None
    order: ProfileWeights | None = None
    coherence: Coherence | None = None
    """What the dependency is made of; `dependency` then has no say."""
    against: dict[str, ProfileWeights] = Field(default_factory=dict)
    """Way of breaking (spliced, halves, interleaved, crumbs) → a sum over the profile: more parts of the dependency."""
    gate: Gate | None = None
    """What real windows are like; what is unlike them loses in rank, or is held back. Older calibrations have none."""
    expected: tuple[dict[str, Any], ...] = ()
    """The rows of the evaluation on the testing half: what to expect of it."""
    documents: tuple[str, ...] = ()
    """doc_ids of everything it was made from; `ladm evaluate --calibration` leaves them out."""
    made_from: dict[str, int] = Field(default_factory=dict)
    """Of a calibration that a run made itself: how many windows and documents it is made from."""
    seed: int = 0
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def last_layer(self) -> int:
        """The layer after which the forward pass ends."""
        return max((*self.layers, *self.profiled))

    @property
    def profiled(self) -> tuple[int, ...]:
        """The layers whose profile is needed for all of it, ascending."""
        of_gate = self.gate.layers if self.gate else ()
        return tuple(sorted({*self.weights.layers, *of_gate}))

    @property
    def weights(self) -> Weights:
        """What the scores that it gives are made with."""
        given = {"dependency": None if self.coherence or self.against else self.dependency, "order": self.order}
        sums = {name: one for name, one in given.items() if one}
        return Weights(sums=sums, coherence=self.coherence, against=self.against)

    @property
    def gives(self) -> tuple[str, ...]:
        """The scores that it gives: `dependency`, `order`."""
        return self.weights.names

    def stated(self, config: LadmConfig) -> LadmConfig:
        """The scorer's configuration, still `calibrated`, with what the calibration was made with filled in.

        So that a run's record and its dataset card tell what the scores were made with, and can be run again.

        Raises:
            ConfigError: it says itself, and otherwise, what the calibration was made with.
        """
        made_with = {
            "formula": "published",
            "span": self.span,
            "d_afs": self.d_afs,
            "d_cds": self.d_cds,
            "ablation": self.ablation,
        }
        for name, value in made_with.items():
            if name in config.model_fields_set and getattr(config, name) != value:
                raise ConfigError(
                    f"scorer.{name}: {getattr(config, name)} is set, and the calibration was made with {value}; leave "
                    f"scorer.{name} out, or run `ladm evaluate` with it"
                )
        return config.model_copy(update=made_with)

    def applied(self, config: LadmConfig) -> LadmConfig:
        """The scorer's configuration with the calibration in place of `calibrated`.

        Raises:
            ConfigError: it says itself, and otherwise, what the calibration was made with.
        """
        return self.stated(config).model_copy(update={"layers": self.layers, "calibration": None})


def profile_score(weights: ProfileWeights, profile_MHF: npt.NDArray[np.floating], layers: Sequence[int]) -> float:
    """The weighted sum of one window's profile, which was taken of M `layers`."""
    profile_NHF = profile_MHF[[layers.index(layer) for layer in weights.layers]]
    return float((profile_NHF * np.array(weights.weights)).sum() + weights.offset)
