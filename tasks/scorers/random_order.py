"""A random score: what any other score must beat, and the control arm of a selection."""

from __future__ import annotations

import hashlib

from pydantic import Field

from ladm.tasks.scorers.evidence import Evidence, Needs
from ladm.tasks.settings import Settings


class RandomConfig(Settings):
    """A random score: what any other score must beat."""

    seed: int = Field(default=0, ge=0)
    """Seed of the random order."""


CONFIG = RandomConfig


def needs(config: RandomConfig, length: int) -> Needs:
    """Nothing but the token ids."""
    return Needs()


def score(config: RandomConfig, evidence: Evidence) -> float:
    """Uniform in [0, 1), by a hash of the seed and the window's tokens: the same wherever and whenever it runs."""
    digest = hashlib.sha256(f"{config.seed} ".encode() + evidence.ids.astype("<i8").tobytes()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
