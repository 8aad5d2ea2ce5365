"""The scores that the published code gives (`shared/golden`), met within 1e-4 in float32, per layer and in all."""

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

GOLDEN = Path(__file__).parents[2] / ".." / "shared" / "golden"
ABLATIONS = {"No": "none", "no_std": "no-std", "no_len_weight": "no-length-weights"}
REAL_TEXT_IN_EVERY_RUN = "00"  # the others take half a minute each

pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason=f"the golden numbers are not at {GOLDEN}")


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of a file; none where there is no file, and the test is skipped."""
    found: list[dict[str, Any]] = json.loads((GOLDEN / name).read_text()) if GOLDEN.exists() else []
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


@pytest.mark.parametrize("case", cases("cases.json"), ids=lambda case: f"{case['case']}-{case['model']}")
def test_random_models(case: dict[str, Any]) -> None:
    ids = np.load(GOLDEN / "input_ids.npz")
    check(case, GOLDEN / case["model"], ids[case["case"]])


def test_random_model_on_the_path_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_mass, "fused_kernel", lambda q_BHLD, v_BKLD: None)
    ids = np.load(GOLDEN / "input_ids.npz")
    case = next(case for case in cases("cases.json") if case["case"] == "03")
    check(case, GOLDEN / case["model"], ids["03"])


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=case["case"],
            marks=[] if case["case"] == REAL_TEXT_IN_EVERY_RUN else [pytest.mark.slow],
        )
        for case in cases("smollm2.json")
    ],
)
def test_smollm2_on_real_text(case: dict[str, Any]) -> None:
    from ladm.tasks.models.resolve import resolve_model

    try:
        folder = resolve_model("embedded").path
    except ModelError as error:
        pytest.skip(f"the embedded model is not here: {error}")
    ids = np.load(GOLDEN / "smollm2_ids.npz")
    check(case, folder, np.reshape(ids[case["case"]], (1, -1)))
