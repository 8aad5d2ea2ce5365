"""The scorers beside ladm: their arithmetic on evidence made by hand, and the evidence against a plain model."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SHAPE, windows
from transformers import AutoModelForCausalLM, LlamaConfig

from ladm.tasks.job import Job
from ladm.tasks.scorers import gzip_ratio, longattn, longfilter, prolong, random_order
from ladm.tasks.scorers.calculator import load_calculator
from ladm.tasks.scorers.evidence import Evidence, Snippet
from ladm.tasks.scorers.ladm import LadmConfig, scoring_plan
from ladm.tasks.scorers.registry import BesideConfig
from ladm.tasks.scorers.snippets import read_snippets
from ladm.tasks.scorers.window_scores import score_windows
from ladm.tasks.stages.measure import measure_key_config, scorer_of

LENGTH = 320


def test_gzip_is_one_in_the_middle_of_its_band_and_nought_at_its_edges() -> None:
    text = "abcdefgh" * 5 + "the quick brown fox jumps over the lazy dog"
    ratio = len(zlib.compress(text.encode(), 6)) / len(text)
    evidence = Evidence(ids=np.arange(8), text=text)
    assert gzip_ratio.score(gzip_ratio.GzipConfig(low=ratio - 0.1, high=ratio + 0.1), evidence) == pytest.approx(1)
    assert gzip_ratio.score(gzip_ratio.GzipConfig(low=ratio, high=ratio + 0.2), evidence) == pytest.approx(0)
    assert gzip_ratio.score(gzip_ratio.GzipConfig(low=ratio + 0.1, high=ratio + 0.3), evidence) == pytest.approx(-1)
    assert math.isfinite(gzip_ratio.score(gzip_ratio.GzipConfig(), Evidence(ids=np.arange(0), text="")))


def test_random_is_uniform_and_the_same_for_the_same_tokens() -> None:
    config = random_order.RandomConfig(seed=3)
    values = [random_order.score(config, Evidence(ids=np.array([number], dtype=np.int32))) for number in range(2000)]
    assert values[7] == random_order.score(config, Evidence(ids=np.array([7], dtype=np.int64)))
    assert values[7] != random_order.score(random_order.RandomConfig(seed=4), Evidence(ids=np.array([7])))
    assert 0 <= min(values) < max(values) < 1
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)


def test_longattn_subtracts_unevenness_from_strength() -> None:
    config = LadmConfig(span=8, d_afs=2, d_cds=3)
    plan = scoring_plan(config, LENGTH)
    pairs = sum(len(query.key_starts) for query in plan.queries)
    even = {0: np.full(pairs, 0.4, dtype=np.float32)}
    settings = longattn.LongAttnConfig()
    strength = np.mean([len(query.key_starts) * 0.05 for query in plan.queries])
    assert longattn.score(settings, Evidence(ids=np.arange(LENGTH), plan=plan, pfs=even)) == pytest.approx(strength)
    uneven = {0: np.where(np.arange(pairs) % 2, 0.8, 0.0).astype(np.float32)}
    assert longattn.score(settings, Evidence(ids=np.arange(LENGTH), plan=plan, pfs=uneven)) < strength * 0.8
    alone = longattn.LongAttnConfig(unevenness=0)
    assert longattn.score(alone, Evidence(ids=np.arange(LENGTH), plan=plan, pfs=uneven)) == pytest.approx(
        strength, rel=0.15
    )


def test_longfilter_is_the_mean_gain_of_the_long_context() -> None:
    config = longfilter.LongFilterConfig(short=16, block=8, blocks=2)
    needs = longfilter.needs(config, LENGTH)
    assert len(needs.snippets) == 2
    assert len(needs.targets) == 16
    assert needs.targets[-1] == LENGTH - 1
    for snippet in needs.snippets:
        ((start, end),) = snippet.parts
        assert (end - start, snippet.targets) == (24, 8)
        assert start >= LENGTH // 4, "a short context that were the whole of it would show no gain"
    evidence = Evidence(
        ids=np.arange(LENGTH),
        log_p=dict.fromkeys(needs.targets, math.log(0.5)),
        snippet_log_p=dict.fromkeys(needs.snippets, np.full(8, math.log(0.25), dtype=np.float32)),
    )
    assert longfilter.score(config, evidence) == pytest.approx(0.5 * math.log(2))


def test_prolong_is_strength_and_distance_times_specificity() -> None:
    config = prolong.ProLongConfig(segment=16, later=1, earlier=2)
    needs = prolong.needs(config, LENGTH)
    alone, near_start, before = needs.snippets
    assert [snippet.parts for snippet in needs.snippets] == [
        ((80, 96),),
        ((0, 16), (80, 96)),
        ((48, 64), (80, 96)),
    ]
    assert {snippet.targets for snippet in needs.snippets} == {15}

    def evidence(ppl_alone: float, *ppl_after: float) -> Evidence:
        each = zip((alone, near_start, before), (ppl_alone, *ppl_after), strict=True)
        return Evidence(
            ids=np.arange(LENGTH), snippet_log_p={s: np.full(15, -math.log(p), dtype=np.float32) for s, p in each}
        )

    share = np.exp([4.0, 0.0]) / np.exp([4.0, 0.0]).sum()
    specificity = 1 + (share * np.log(share)).sum() / math.log(2)
    expected = (4 / 10 + 5 / 19) * specificity / 2  # the other pair's strength is 0
    assert prolong.score(config, evidence(10, 6, 10)) == pytest.approx(expected, rel=1e-4)
    assert prolong.score(config, evidence(10, 6, 6)) == pytest.approx(0, abs=1e-6), "all help alike: not specific"
    assert prolong.score(config, evidence(10, 9.5, 10)) == 0, "below the threshold"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("causal")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE)).save_pretrained(path)
    return path


def log_p(folder: Path, ids_L: np.ndarray) -> np.ndarray:
    """Log p of every token but the first, by a plain forward pass."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(torch.as_tensor(ids_L)[None].long()).logits[0].double()
    return logits.log_softmax(-1)[:-1].gather(1, torch.as_tensor(ids_L)[1:, None].long())[:, 0].numpy()


def test_snippets_and_targets_against_plain_passes(folder: Path) -> None:
    config = LadmConfig(span=8, d_afs=2, d_cds=3, device="cpu")
    calculator = load_calculator(folder, config, head=True)
    ids_L = windows(1, LENGTH)[0]
    one, two = Snippet(((10, 40),), 5), Snippet(((0, 12), (100, 118)), 17)
    found = read_snippets(calculator, ids_L, [one, two])
    np.testing.assert_allclose(found[one], log_p(folder, ids_L[10:40])[-5:], rtol=1e-4)
    joined = np.concatenate([ids_L[:12], ids_L[100:118]])
    np.testing.assert_allclose(found[two], log_p(folder, joined)[-17:], rtol=1e-4)


def test_a_scorer_that_gives_other_numbers_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = LadmConfig.model_validate({"beside": ["gzip", "random"]})

    def key(name: str) -> dict[str, Any]:
        return measure_key_config(scorer, name, scorer.beside.needs_of(name))

    first, other = key("gzip"), key("random")
    assert "version" not in first
    monkeypatch.setattr(gzip_ratio, "VERSION", 2, raising=False)
    assert (key("gzip"), key("random")) == ({**first, "version": 2}, other)
    job = Job(stage="measure", label="x", store="x", config=key("gzip"))
    assert scorer_of(job).beside.names == ("gzip",)


def test_all_side_by_side_equal_each_alone_and_leave_the_ladm_score_as_it_is(folder: Path) -> None:
    plain = LadmConfig(span=8, d_afs=2, d_cds=3, device="cpu", layers=(1,))
    settings = {
        "longattn": {},
        "prolong": {"segment": 16},
        "longfilter": {"short": 16, "block": 8},
        "gzip": {},
        "random": {"seed": 1},
    }
    calculator = load_calculator(folder, plain, head=True)
    ids_BL = windows(3, LENGTH)
    text_of = lambda ids_L: " ".join(map(str, ids_L))  # noqa: E731
    every = plain.model_copy(update={"beside": BesideConfig.model_validate(settings)})
    together = score_windows(calculator, every, ids_BL, None, text_of)
    alone = score_windows(calculator, plain, ids_BL)
    for one, other in zip(together, alone, strict=True):
        assert one.cds_per_layer == pytest.approx(other.cds_per_layer, rel=1e-5)
        assert one.layers == [1]
        assert list(one.beside) == list(settings)
    for name, own in settings.items():
        config = plain.model_copy(update={"beside": BesideConfig.model_validate({name: own})})
        scores = score_windows(calculator, config, ids_BL, None, text_of)
        for one, other in zip(together, scores, strict=True):
            assert other.beside == {name: {name: pytest.approx(one.beside[name][name], rel=1e-4)}}
    # longfilter once more, from plain passes
    config = longfilter.LongFilterConfig(short=16, block=8)
    gains = []
    for snippet in longfilter.needs(config, LENGTH).snippets:
        ((start, end),) = snippet.parts
        long_T, short_T = log_p(folder, ids_BL[0])[end - 9 : end - 1], log_p(folder, ids_BL[0][start:end])[-8:]
        gains.append(np.exp(long_T) * (long_T - short_T))
    assert together[0].beside["longfilter"]["longfilter"] == pytest.approx(np.concatenate(gains).mean(), rel=1e-3)


def test_names_stand_for_default_settings() -> None:
    assert LadmConfig.model_validate({"beside": ["gzip", "random"]}).beside.names == ("gzip", "random")
    assert LadmConfig.model_validate({"beside": {"gzip": {"low": 0.1}}}).beside.gzip == gzip_ratio.GzipConfig(low=0.1)
    assert LadmConfig().beside.names == ()
