"""What the gate's verdict is tested on is still what the model finds in those windows. Slow."""

from __future__ import annotations

import numpy as np
import pytest
from gate_windows import REAL, measure, stored, texts

from ladm.tasks.models.resolve import resolve_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_stored_measurements_are_those_of_the_windows() -> None:
    model, kept = resolve_model("embedded"), stored()
    windows = texts(model)
    again = "measure anew: python tests/scorers/gate_windows.py"
    assert [window.name for window in windows] == kept.names, again
    chosen = [place for place, kind in enumerate(kept.kinds) if kind != REAL or place % 7 == 0]
    for place, (profile_NHF, coherent_E, text) in zip(
        chosen, measure(model, [windows[place] for place in chosen]), strict=True
    ):
        assert text == pytest.approx(kept.text[place]), again
        np.testing.assert_allclose(profile_NHF, kept.profile_wnhf[place], atol=0.02, err_msg=again)
        np.testing.assert_allclose(coherent_E, kept.coherent_we[place], atol=0.02, err_msg=again)
