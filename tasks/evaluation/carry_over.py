"""Carrying a shipped calibration over to another window length, or to other spans, of the same model.

A shipped calibration was fitted on hundreds of windows of many kinds of text, and tested against junk; a run can
measure some sixty. So what hangs together with what, in real text, is taken from it: the weights of the dependency, and
the gate's scales and correlations. What depends on the length are levels: the mean of each of the gate's features,
where unlikeness 0 lies, and where the parts of the dependency lie in real windows. Those are taken anew, of windows of
the new length. They are few numbers, so those of the bundled sample are enough, and a corpus that is half junk has no
say in them.

Dimensions in names: W windows, G features of the gate, F features of coherence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ladm.tasks.evaluation.gate import Windows, means, rounded, windows_of
from ladm.tasks.evaluation.scores import Setting, coherent, features_read, reads_only
from ladm.tasks.scorers.calibration import Calibration, ProfileWeights, profile_score
from ladm.tasks.scorers.coherence import FeatureWeights
from ladm.tasks.scorers.gate import Gate, gate_distances
from ladm.tasks.stages.scan import Measurement

SomeWeights = TypeVar("SomeWeights", ProfileWeights, FeatureWeights)


def can_be_carried(shipped: Calibration, profile_layers: Sequence[int], topic_layer: int | None) -> bool:
    """Whether a shipped calibration has all its parts, and reads only what is measured of windows, in these layers."""
    whole = shipped.gate is not None and shipped.coherence is not None
    return whole and reads_only(shipped, profile_layers, topic_layer)


def centred_on(gate: Gate, real: Windows) -> Gate:
    """The gate, in the middle of some real windows: of their mean, and with unlikeness 0 at their median.

    Every domain counts alike. It holds back none of those windows.
    """
    moved = _with(gate, mean=rounded(means(real)))
    middle = float(np.median(gate_distances(moved, real.features)))
    moved = _with(moved, centre=round(moved.centre + middle, 6))
    most = float(gate_distances(moved, real.features).max())
    return _with(moved, threshold=round(max(gate.threshold, most), 6), windows=len(real.features))


def carried_over(shipped: Calibration, setting: Setting, real: Sequence[Measurement]) -> Calibration:
    """The shipped calibration for windows of another length, or with other spans.

    Args:
        shipped: One that `can_be_carried`.
        setting: What the windows were measured with.
        real: Measurements of whole windows of real text, one at least.
    """
    if shipped.gate is None or shipped.coherence is None:
        raise ValueError("the calibration has no gate, or no coherence")
    coherent_WF = coherent(setting, real, shipped.weights)
    windows = windows_of(features_read(shipped.gate, real, setting.profile_layers, coherent_WF), real)
    part_W = [shipped.coherence.parts(coherent_F) for coherent_F in coherent_WF]
    against = {
        name: _less(one, float(np.median([part[name] for part in part_W])))
        for name, one in shipped.coherence.against.items()
    }
    return shipped.model_copy(
        update={
            "window_length": setting.length,
            "span": setting.config.span,
            "d_afs": setting.config.d_afs,
            "d_cds": setting.config.d_cds,
            "order": _middled(shipped.order, setting, real) if shipped.order else None,
            "coherence": shipped.coherence.model_copy(update={"against": against}),
            "against": {name: _middled(one, setting, real) for name, one in shipped.against.items()},
            "gate": centred_on(shipped.gate, windows),
            "documents": tuple(sorted({*shipped.documents, *(one.base for one in real)})),
        }
    )


def _middled(weights: ProfileWeights, setting: Setting, real: Sequence[Measurement]) -> ProfileWeights:
    """The weights with the offset by which real windows lie about 0."""
    score_W = [profile_score(weights, one.profile_mhf, setting.profile_layers) for one in real]
    return _less(weights, float(np.median(score_W)))


def _less(weights: SomeWeights, middle: float) -> SomeWeights:
    return weights.model_copy(update={"offset": round(weights.offset - middle, 6)})


def _with(gate: Gate, **update: object) -> Gate:
    """A gate with other numbers; made anew, since a gate keeps its arrays."""
    return Gate.model_validate(gate.model_dump() | update)
