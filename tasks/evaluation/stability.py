"""How far a ranking stays the same when the measuring changes a little: strides, precision, the windows chosen.

Dimensions in names: W windows, N layers, I whole windows, J broken ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.tasks.evaluation.contrast_set import SPLICED, WHOLE
from ladm.tasks.evaluation.scores import SINGLY, Floats, Setting, calibrated_scores, named_layers, per_layer
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.stages.scan import Measurement


def spearman(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Spearman's rank correlation; ties get their mean rank. NaN for fewer than three values."""
    import pandas as pd  # noqa: PLC0415

    if len(np.asarray(one)) < 3:
        return float("nan")
    return float(pd.Series(np.asarray(one)).rank().corr(pd.Series(np.asarray(other)).rank()))


def stability(
    setting: Setting,
    found: Sequence[Measurement],
    rounded: Mapping[str, Measurement],
    calibration: Calibration | None,
    *,
    native: bool = True,
) -> list[dict[str, Any]]:
    """How far the ranking of whole windows stays the same, by Spearman's correlation, for each formula.

    Against: strides halved; the model in bfloat16 (`rounded`, by document; `native`: computed, not only rounded so);
    and, for how sure the choice of layers is, the AUC of every single layer from half of the windows against that from
    the other half.
    """
    whole = [one for one in found if one.kind == WHOLE]
    rows = []

    def of(measured: Sequence[Measurement], ablation: str, layers: Sequence[int], *, fine: bool = False) -> Floats:
        places = [setting.layers.index(layer) for layer in layers]
        mean_W: Floats = per_layer(setting, measured, ablation, fine=fine)[:, places].mean(axis=1)
        return mean_W

    formulas = [(formula, ablation, setting.layers) for formula, ablation in SINGLY]
    if calibration:
        formula = "calibrated-layers" if "dependency" in calibration.gives else "calibrated"
        formulas.append((formula, calibration.ablation, calibration.layers))
    both = [one for one in whole if one.base in rounded]
    name = "bfloat16" if native else "bfloat16 (rounded in float32)"
    for formula, ablation, layers in formulas:
        exact = of(whole, ablation, layers)
        rows.append(_stable(formula, layers, "strides halved", exact, of(whole, ablation, layers, fine=True)))
        if both:
            other = of([rounded[one.base] for one in both], ablation, layers)
            rows.append(_stable(formula, layers, name, of(both, ablation, layers), other))
    if calibration and both:
        exact_by = calibrated_scores(setting, both, calibration)
        other_by = calibrated_scores(setting, [rounded[one.base] for one in both], calibration)
        for choice, exact in exact_by.items():
            if choice.formula not in {formula for formula, *_ in formulas}:
                rows.append(_stable(choice.formula, choice.layers, name, exact, other_by[choice]))
    for formula, ablation in SINGLY:
        cds_WN = per_layer(setting, found, ablation)
        halves = [_layer_aucs(found, cds_WN, half) for half in (0, 1)]
        rows.append(_stable(formula, setting.layers, "half the windows: AUC by layer", *halves))
    return rows


def _stable(formula: str, layers: Sequence[int] | str, against: str, one: Floats, other: Floats) -> dict[str, Any]:
    measured = ~np.isnan(one) & ~np.isnan(other)
    one, other = one[measured], other[measured]
    value = spearman(one, other)
    return {
        "formula": formula,
        "layers": layers if isinstance(layers, str) else named_layers(layers),
        "against": against,
        "spearman": None if np.isnan(value) else round(value, 4),
        "windows": len(one),
    }


def _layer_aucs(found: Sequence[Measurement], cds_WN: Floats, half: int) -> Floats:
    """Mean over domains of each layer's AUC, whole against spliced, from every other document."""
    numbers: dict[str, dict[str, int]] = {}
    for one in found:
        numbers.setdefault(one.domain, {}).setdefault(one.base, len(numbers.get(one.domain, {})))
    sums = []
    for domain, bases in numbers.items():
        chosen = {
            kind: [
                place
                for place, one in enumerate(found)
                if one.domain == domain and one.kind == kind and bases[one.base] % 2 == half
            ]
            for kind in (WHOLE, SPLICED)
        }
        whole_IN, broken_JN = cds_WN[chosen[WHOLE]], cds_WN[chosen[SPLICED]]
        if len(whole_IN) and len(broken_JN):
            measured_IJN = ~np.isnan(whole_IN[:, None]) & ~np.isnan(broken_JN[None])
            above_IJN = (whole_IN[:, None] > broken_JN[None]) & measured_IJN
            pairs_N = measured_IJN.sum(axis=(0, 1))
            sums.append(np.where(pairs_N > 0, above_IJN.sum(axis=(0, 1)) / np.maximum(pairs_N, 1), np.nan))
    if not sums:
        return np.full(cds_WN.shape[1], np.nan)
    there_N = (~np.isnan(sums)).sum(axis=0)
    mean_N: Floats = np.where(there_N > 0, np.nansum(sums, axis=0) / np.maximum(there_N, 1), np.nan)
    return mean_N
