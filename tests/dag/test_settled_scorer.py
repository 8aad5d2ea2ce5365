"""What a scorer's settings become once the calibration is settled by which it scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import write_jsonl

from ladm.flows.config import RunConfig
from ladm.flows.console import Console
from ladm.flows.dag.settled_scorer import with_calibration
from ladm.flows.evaluation.request import question_of
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.reading.readers import SourceConfig


def configured(length: int, **scorer: Any) -> RunConfig:
    return RunConfig.model_validate({"sources": ["/data"], "scorer": scorer, "window": {"length": length}})


@pytest.mark.parametrize(
    ("length", "scorer", "span", "layers"),
    [
        (1024, {}, 32, "calibrated"),
        (8192, {}, 256, "calibrated"),
        (1024, {"layers": "own"}, 32, "own"),
        (512, {}, 16, "own"),
        (1500, {}, 46, "own"),
        (3000, {}, 93, "own"),
        (3000, {"span": 128}, 128, "own"),  # what is set stays
        (4096, {"span": 64}, 64, "own"),
        (4096, {"ablation": "no-length-weights"}, 128, "all"),
        (4096, {"layers": "all"}, 128, "all"),  # as published
    ],
)
def test_where_no_span_is_set_the_calibration_says_it(
    length: int, scorer: dict[str, Any], span: int, layers: str
) -> None:
    settled, _ = with_calibration(configured(length, **scorer), resolve_model("embedded"))
    assert (settled.scorer.span, settled.scorer.layers) == (span, layers)


def test_an_evaluation_has_the_spans_of_a_run_s_own_calibration(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "lines.jsonl", "Lines", 0, [900])

    def span(**scorer: Any) -> int:
        config = configured(600, **scorer)
        sources = [SourceConfig(uri=str(tmp_path / "lines.jsonl"))]
        config = config.model_copy(update={"sources": sources, "store": str(tmp_path / "store")})
        question = question_of(config, {}, None, str(tmp_path / "out"), thorough=False, console=Console(None))
        return question.plan.config.scorer.span

    assert (span(), span(span=32)) == (18, 32)
