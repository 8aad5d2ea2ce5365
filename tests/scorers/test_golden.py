"""The scores that the published code gives, met within 1e-4 in float32, per layer and in all.

Those of SmolLM2 on real text lie in `tests/data/golden`; those of two random models, and the models, in
`../shared/golden`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladm.tasks.errors import ModelError
from ladm.tasks.scorers import span_mass
from ladm.tasks.scorers.calculator import load_calculator
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.window_scores import score_windows

RANDOM_MODELS = Path(__file__).parents[2] / ".." / "shared" / "golden"
REAL_TEXT = Path(__file__).parents[1] / "data" / "golden"
ABLATIONS = {"No": "none", "no_std": "no-std", "no_len_weight": "no-length-weights"}
REAL_TEXT_IN_EVERY_RUN = "00"  # the others take half a minute each

random_models = pytest.mark.skipif(not RANDOM_MODELS.exists(), reason="../shared/golden is not here")


def cases(path: Path) -> list[dict[str, Any]]:
    """The cases of a file; none where there is no file, and the test is skipped."""
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


def check(case: dict[str, Any], folder: Path, ids_BL: np.ndarray, device: str = "cpu") -> None:
    spans = {key: case[key] for key in ("span", "d_afs", "d_cds")}
    config = LadmConfig.model_validate(
        {**spans, "ablation": ABLATIONS[case["ablation"]], "dtype": "float32", "device": device}
    )
    assert ids_BL.shape[1] == case["length"]
    scores = score_windows(load_calculator(folder, config), config, ids_BL)
    per_layer = np.reshape(case["cds_per_layer"], (len(ids_BL), -1))
    np.testing.assert_allclose([score.cds_per_layer for score in scores], per_layer, rtol=1e-4)
    np.testing.assert_allclose([score.cds for score in scores], np.reshape(case["cds"], -1), rtol=1e-4)


REAL_CASES = cases(REAL_TEXT / "smollm2.json")
RANDOM_CASES = cases(RANDOM_MODELS / "cases.json")


@random_models
@pytest.mark.parametrize("case", RANDOM_CASES, ids=lambda case: f"{case['case']}-{case['model']}")
def test_random_models(case: dict[str, Any]) -> None:
    ids = np.load(RANDOM_MODELS / "input_ids.npz")
    check(case, RANDOM_MODELS / case["model"], ids[case["case"]])


@random_models
def test_random_model_on_the_path_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_mass, "fused_kernel", lambda q_BHLD, v_BKLD: None)
    ids = np.load(RANDOM_MODELS / "input_ids.npz")
    case = next(case for case in RANDOM_CASES if case["case"] == "03")
    check(case, RANDOM_MODELS / case["model"], ids["03"])


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=case["case"],
            marks=[] if case["case"] == REAL_TEXT_IN_EVERY_RUN else [pytest.mark.slow],
        )
        for case in REAL_CASES
    ],
)
def test_smollm2_on_real_text(case: dict[str, Any]) -> None:
    from ladm.tasks.models.resolve import resolve_model

    try:
        folder = resolve_model("embedded").path
    except ModelError as error:
        pytest.skip(f"the embedded model is not here: {error}")
    ids = np.load(REAL_TEXT / "smollm2_ids.npz")
    check(case, folder, np.reshape(ids[case["case"]], (1, -1)))
