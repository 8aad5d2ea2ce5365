"""LongAttn (arXiv 2502.16860): how strongly, and how evenly, the first layer attends to distant tokens.

The paper takes, for each token, the share of its attention beyond a local range (*dependency strength*) and the
variance of that attention (the opposite of *distribution uniformity*), brings both to [0, 1] over the corpus, and
ranks by strength minus half the variance. Here both are taken over LADM's sampled spans, from the same pass, and
within the window, since a window's score must not depend on the rest of the corpus: strength is the mean share on
distant spans, and what is subtracted is the spread of that share over key spans, in the same unit.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ladm.tasks.scorers.evidence import Evidence, Needs
from ladm.tasks.settings import Settings


class LongAttnConfig(Settings):
    """LongAttn: how strongly and evenly one layer attends to distant text."""

    layer: int = Field(default=0, ge=0)
    """The layer, counted from 0. The paper uses the first."""
    unevenness: float = Field(default=0.5, ge=0)
    """Weight of the spread of the attention, which is subtracted from its strength."""


CONFIG = LongAttnConfig


def needs(config: LongAttnConfig, length: int) -> Needs:
    """The attention between spans in one layer."""
    return Needs(layers=(config.layer,))


def score(config: LongAttnConfig, evidence: Evidence) -> float:
    """Mean over query spans of (strength − unevenness · spread), in shares of a row's attention."""
    assert evidence.plan is not None
    pfs_P = evidence.pfs[config.layer].astype(np.float64) / evidence.plan.span
    done, terms = 0, []
    for query in evidence.plan.queries:
        share_M = pfs_P[done : done + len(query.key_starts)]
        done += len(query.key_starts)
        terms.append(share_M.sum() - config.unevenness * share_M.std() * len(share_M))
    return float(np.mean(terms))
