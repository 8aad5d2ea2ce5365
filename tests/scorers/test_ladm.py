"""LADM's configuration and arithmetic, without a model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from ladm.tasks.errors import ConfigError
from ladm.tasks.models.facts import ModelFacts
from ladm.tasks.scorers.ladm import (
    LadmConfig,
    check_window_length,
    dependency_scores,
    grid_plan,
    layers_left_out,
    left_out_line,
    measured_layers,
    min_window_length,
    scoring_plan,
    wanted_layers,
)
from ladm.tasks.scorers.spans import QuerySpan, SpanPlan


def test_importing_the_configuration_imports_no_torch() -> None:
    code = "import sys, ladm.tasks.scorers.ladm; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("written", "layers"),
    [
        ("all", "all"),
        (" all ", "all"),
        ("14-24", tuple(range(14, 25))),
        ("3,7, 9", (3, 7, 9)),
        ("[3, 7]", (3, 7)),
        ("0-2,5", (0, 1, 2, 5)),
        ("6", (6,)),
        (6, (6,)),
        ([1, 2], (1, 2)),
    ],
)
def test_every_way_to_write_layers_means_the_same(written: object, layers: object) -> None:
    config = LadmConfig.model_validate({"layers": written})
    assert config.layers == layers
    assert LadmConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("written", ["", "24-14", "a", "1,,2", "-1", "1-2-3", "0-99999999999", "1.5", True, [1.5]])
def test_layers_that_cannot_be_read_are_refused(written: object) -> None:
    with pytest.raises(ValidationError, match=r"layers"):
        LadmConfig.model_validate({"layers": written})


def test_a_configuration_can_be_hashed() -> None:
    assert len({LadmConfig(layers="1-2"), LadmConfig(layers=(1, 2)), LadmConfig()}) == 2


@pytest.mark.parametrize("field", ["span", "d_afs", "d_cds", "batch_tokens"])
def test_numbers_below_one_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        LadmConfig.model_validate({field: 0})


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu0"])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(ValidationError, match="device"):
        LadmConfig(device=device)


def test_wanted_layers() -> None:
    assert wanted_layers(LadmConfig(), 3) == [0, 1, 2]
    assert wanted_layers(LadmConfig(layers="2,0"), 3) == [0, 2]
    for layers, message in (
        ((), r"^scorer\.layers: the list is empty"),
        ((1, 1), r"^scorer\.layers: layer 1 is named twice"),
        ((0, 3), r"^scorer\.layers: the model has no layer 3; its 3 layers are 0 to 2$"),
        ((-1,), r"^scorer\.layers: the model has no layer -1"),
    ):
        with pytest.raises(ConfigError, match=message):
            wanted_layers(LadmConfig(layers=layers), 3)


@pytest.mark.parametrize(
    ("config", "shortest"),
    [
        (LadmConfig(), 2305),
        (LadmConfig(span=64, d_afs=2), 641),
        (LadmConfig(formula="paper"), 17 * 128),
        (LadmConfig(formula="paper", span=16, paper_first_query_span=20), 21 * 16),
    ],
)
def test_the_shortest_window_is_the_first_with_a_query_span(config: LadmConfig, shortest: int) -> None:
    assert min_window_length(config) == shortest
    assert len(scoring_plan(config, shortest).queries) == 1
    assert not scoring_plan(config, shortest - 1).queries
    check_window_length(config, shortest)
    with pytest.raises(
        ConfigError, match=rf"^window\.length: {shortest - 1} tokens .* set window\.length to {shortest}"
    ):
        check_window_length(config, shortest - 1)


def test_paper_constants_that_leave_no_standard_deviation_are_refused() -> None:
    # Span 9 has the key spans 4 only (n = 4, d = 4, m = 1); span 10 has 5 and 1.
    with pytest.raises(ConfigError, match=r"^scorer\.paper_first_query_span: span 9 .* set it to 10 or more"):
        check_window_length(LadmConfig(formula="paper", paper_first_query_span=9), 10_000)
    check_window_length(LadmConfig(formula="paper", paper_first_query_span=10), 10_000)
    check_window_length(LadmConfig(formula="paper", paper_first_query_span=9, ablation="no-std"), 10_000)
    with pytest.raises(ConfigError, match=r"fewer than 1 key spans .* set it to 6 or more"):
        check_window_length(LadmConfig(formula="paper", paper_first_query_span=5, ablation="no-std"), 10_000)


def test_published_spans_are_counted_from_the_last_token() -> None:
    plan = scoring_plan(LadmConfig(span=10, d_afs=2, d_cds=3), 165)
    assert plan == SpanPlan(
        165,
        10,
        False,
        (
            QuerySpan(95, (75, 55, 35, 15)),
            QuerySpan(125, (105, 85, 65, 45, 25)),
            QuerySpan(155, (135, 115, 95, 75, 55, 35, 15)),
        ),
    )


def test_paper_spans_are_numbered_from_the_first_token() -> None:
    plan = scoring_plan(LadmConfig(formula="paper", span=10), 219)  # spans 0 to 20
    assert plan == SpanPlan(219, 10, True, (QuerySpan(160, (110, 70, 30)), QuerySpan(200, (150, 110, 70, 30))))


def test_the_grid_is_the_one_that_scores_are_sampled_from() -> None:
    published = grid_plan(LadmConfig(span=10), 35)
    assert [(query.start, query.key_starts) for query in published.queries] == [(15, (5,)), (25, (15, 5))]
    paper = grid_plan(LadmConfig(span=10, formula="paper"), 35)
    assert [query.key_starts for query in paper.queries] == [(0,), (10, 0), (20, 10, 0)]


def test_dependency_scores_by_hand() -> None:
    plan = SpanPlan(100, 10, False, (QuerySpan(50, (40, 20)), QuerySpan(80, (60, 30, 10))))
    pfs_BP = np.array([[1.0, 3.0, 2.0, 2.0, 5.0]])
    # σ: √2 of (1, 3); √3 of (2, 2, 5). Distances: .1, .3; .2, .5, .7. Positions: .5, .8.
    first, second = 2**0.5 * (0.1 * 1 + 0.3 * 3) * 0.5, 3**0.5 * (0.2 * 2 + 0.5 * 2 + 0.7 * 5) * 0.8
    assert dependency_scores(LadmConfig(), plan, pfs_BP) == pytest.approx([(first + second) / 2])
    assert dependency_scores(LadmConfig(formula="paper"), plan, pfs_BP) == pytest.approx([first + second])
    assert dependency_scores(LadmConfig(ablation="no-std"), plan, pfs_BP) == pytest.approx([(0.5 + 3.92) / 2])
    unweighted = (2**0.5 * 4 + 3**0.5 * 9) / 2
    assert dependency_scores(LadmConfig(ablation="no-length-weights"), plan, pfs_BP) == pytest.approx([unweighted])


def facts(*, full: tuple[int, ...], sliding: tuple[tuple[int, int], ...]) -> ModelFacts:
    return ModelFacts("made up", 8, full, sliding, max_positions=None, vocab_size=100)


def test_all_layers_are_those_that_see_the_whole_window() -> None:
    model = facts(full=(3, 7), sliding=((0, 600), (1, 512), (2, 512), (4, 512), (5, 512)))  # 6: no attention
    for length, layers, left_out in (
        (512, [0, 1, 2, 3, 4, 5, 7], [6]),
        (600, [0, 3, 7], [1, 2, 4, 5, 6]),
        (601, [3, 7], [0, 1, 2, 4, 5, 6]),
    ):
        assert measured_layers(LadmConfig(), model, length) == layers
        assert layers_left_out(LadmConfig(), model, layers) == left_out
    assert "layers 0-2,4-6 of 'embedded': they do not see all 601 tokens" in left_out_line(
        LadmConfig(), [0, 1, 2, 4, 5, 6], 601
    )


def test_a_layer_named_must_see_the_whole_window() -> None:
    model = facts(full=(3, 7), sliding=((0, 600),))
    assert measured_layers(LadmConfig(layers=(7, 0)), model, 600) == [0, 7]
    assert layers_left_out(LadmConfig(layers=(7, 0)), model, [0, 7]) == []
    with pytest.raises(ConfigError, match=r"^scorer\.layers: layers 0-2 of .* all 601 .* set scorer\.layers=3,7$"):
        measured_layers(LadmConfig(layers="0-3"), model, 601)
    with pytest.raises(ConfigError, match=r"^scorer\.layers: the model has no layer 8"):
        measured_layers(LadmConfig(layers=(8,)), model, 600)


def test_a_model_that_sees_no_whole_window_is_refused() -> None:
    model = facts(full=(), sliding=((0, 600), (1, 4096)))
    assert measured_layers(LadmConfig(), model, 4096) == [1]
    with pytest.raises(ConfigError, match=r"no layer of .* more than 4096 tokens.* set window\.length to 4096 or less"):
        measured_layers(LadmConfig(), model, 4097)
    with pytest.raises(ConfigError, match=r"the window has 601; choose another model$"):  # 600 < 2305, the shortest
        measured_layers(LadmConfig(), facts(full=(), sliding=((0, 600),)), 601)
