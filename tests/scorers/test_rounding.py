"""Rounding to bfloat16 in float32 comes closer to bfloat16 than float32 does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_models
import torch
from tiny_models import SHAPE, windows
from transformers import LlamaConfig

from ladm.tasks.scorers.calculator import load_calculator
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.rounding import round_to_bfloat16, rounded
from ladm.tasks.scorers.window_scores import score_windows


def test_rounded_values_are_those_of_bfloat16() -> None:
    values = torch.tensor([1.0, 1.001, 3.14159])
    assert torch.equal(rounded(values), values.bfloat16().float())
    assert not torch.equal(rounded(values), values)
    pair = rounded((values, [values, None]))
    assert torch.equal(pair[1][0], values.bfloat16().float())
    assert pair[1][1] is None
    ids = torch.arange(1000)
    assert rounded(ids) is ids


def test_a_rounded_model_is_a_bfloat16_model_but_for_a_little(tmp_path: Path) -> None:
    path = tiny_models.save(LlamaConfig(**SHAPE), tmp_path)
    config = LadmConfig(span=8, d_afs=2, d_cds=2, device="cpu", dtype="float32")
    ids = windows(12, 200)

    def scores(dtype: str, *, rounding: bool = False) -> np.ndarray:
        chosen = config.model_copy(update={"dtype": dtype})
        calculator = load_calculator(path, chosen)
        if rounding:
            round_to_bfloat16(calculator.model)
        return np.array([score.cds_per_layer for score in score_windows(calculator, chosen, ids)])

    exact, real, emulated = scores("float32"), scores("bfloat16"), scores("float32", rounding=True)
    assert np.abs(emulated - exact).mean() > 0
    assert np.abs(emulated - real).mean() < 0.8 * np.abs(real - exact).mean()
