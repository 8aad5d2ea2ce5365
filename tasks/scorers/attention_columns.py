"""What a window's attention is like, layer by layer, before any score is made of it.

| column | is |
|---|---|
| `attention_layers` | the layers of the two columns that follow, from 0 |
| `far_mass` | share of its attention that a query span puts on the sampled earlier spans, a layer |
| `specificity` | of that share, the part that the one key span has that gets most: high where text points somewhere |
| `profile_layers` | the layers of the column that follows |
| `attention_profile` | the profile of attention by distance (`distance_profile.py`), mean over heads, layer by layer |

All are means over heads and query spans.

Dimensions in names: H heads, F features of the profile, M key spans of a query span, P pairs of spans.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ladm.tasks.scorers.evidence import Evidence, Needs
from ladm.tasks.scorers.spans import SpanPlan
from ladm.tasks.settings import Settings

COLUMNS = [
    pa.field("attention_layers", pa.list_(pa.int32())),
    pa.field("far_mass", pa.list_(pa.float64())),
    pa.field("specificity", pa.list_(pa.float64())),
    pa.field("profile_layers", pa.list_(pa.int32())),
    pa.field("attention_profile", pa.list_(pa.float32())),
]
_NOTHING = 1e-9  # of attention; below this there is nothing to be specific about


class AttentionConfig(Settings):
    """Columns of what the window's attention is like, layer by layer."""

    layers: tuple[int, ...] = ()
    """Layers whose attention between sampled spans is measured, counted from 0."""
    profile: tuple[int, ...] = ()
    """Layers whose profile of attention by distance is measured, counted from 0."""


CONFIG = AttentionConfig


def needs(config: AttentionConfig, length: int) -> Needs:
    """The attention between spans, and the profile."""
    return Needs(layers=config.layers, profile=config.profile)


def score(config: AttentionConfig, evidence: Evidence) -> dict[str, Any]:
    """The columns of one window."""
    assert evidence.plan is not None
    spans = [spans_of(evidence.plan, evidence.pfs_heads[layer]) for layer in config.layers]
    profile = [evidence.profile[layer].mean(axis=0) for layer in config.profile]
    return {
        "attention_layers": list(config.layers),
        "far_mass": [far for far, _ in spans],
        "specificity": [largest for _, largest in spans],
        "profile_layers": list(config.profile),
        "attention_profile": np.concatenate(profile).tolist() if profile else [],
    }


def spans_of(plan: SpanPlan, pfs_HP: npt.NDArray[np.floating]) -> tuple[float, float]:
    """The far mass and the specificity of one layer.

    Args:
        plan: The spans that were measured.
        pfs_HP: The attention mass of each pair of them, head by head.
    """
    share_HP = pfs_HP.astype(np.float64) / plan.span
    done, masses, largest = 0, [], []
    for query in plan.queries:
        share_HM = share_HP[:, done : done + len(query.key_starts)]
        done += len(query.key_starts)
        mass_H = share_HM.sum(axis=1)
        masses.append(mass_H)
        largest.append(share_HM.max(axis=1) / np.maximum(mass_H, _NOTHING))
    return float(np.mean(masses)), float(np.mean(largest))
