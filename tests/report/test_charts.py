"""Charts of domains in scripts that matplotlib's own font lacks: text, and no warnings."""

from __future__ import annotations

import warnings

import pytest

from ladm.flows.report.charts import allocation_chart, scores_chart

NAMES = ["漢字", "ドメイン", "한국어", "العربية", "हिन्दी", "😀 emoji", "\U0001f9ff", "\x1b", "a\u200db"]


@pytest.mark.parametrize("name", NAMES)
def test_any_script_is_drawn_without_a_warning(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    bars = [{"bar": bar, "lowest": 0.0, "highest": 1.0, "selected": 1, "others": 2} for bar in range(2)]
    targets = [{"selected_tokens": 5, "target_tokens": 10}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = scores_chart(name, bars, None)
        allocated = allocation_chart(targets, [name])
    if name.isprintable():
        assert name in drawn
        assert f">{name}<" in allocated
    assert capfd.readouterr().err == ""
