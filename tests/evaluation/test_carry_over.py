"""Carrying a calibration over: levels are taken anew of real windows, and what hangs together stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ladm.tasks.evaluation.carry_over import carried_over
from ladm.tasks.evaluation.dependency import stored
from ladm.tasks.evaluation.gate import Windows, fit_gate, means
from ladm.tasks.evaluation.scores import (
    Setting,
    calibrated_scores,
    coherent,
    features_read,
    shipped_scores,
    unlikeness,
)
from ladm.tasks.scorers import topics, vocabulary
from ladm.tasks.scorers.calibration import Calibration, ProfileWeights, profile_score
from ladm.tasks.scorers.coherence import APART, FEATURES, Coherence, FeatureWeights, PairWeights, pairs_of
from ladm.tasks.scorers.distance_profile import FEATURES as OF_PROFILE
from ladm.tasks.scorers.distance_profile import profile_plan
from ladm.tasks.scorers.gate import COLUMNS, OF_THE_TEXT
from ladm.tasks.scorers.ladm import LadmConfig, scoring_plan
from ladm.tasks.stages.scan import Measurement

HEADS, LAYERS = 3, (4, 5)
LENGTH, OTHER = 512, 1024
DOMAINS = ("Books", "Books", "Books", "Code")


def weights_of(layers: tuple[int, ...], chance: np.random.Generator, offset: float) -> ProfileWeights:
    return stored(layers, chance.normal(0, 1, (len(layers), HEADS, len(OF_PROFILE))), offset)


def windows_of_length(length: int, count: int, level: float) -> list[Measurement]:
    """Windows whose every number lies about a level."""
    chance = np.random.default_rng(length)
    config = LadmConfig(span=length // 32, d_afs=4, d_cds=4)
    spans = sum(len(query.key_starts) for query in scoring_plan(config, length).queries)
    return [
        Measurement(
            base=f"{length}-{number}",
            domain=DOMAINS[number % len(DOMAINS)],
            kind="whole",
            half="calibrate",
            documents=(f"{length}-{number}",),
            pfs_np=chance.uniform(0.1, 1, (len(LAYERS), spans)).astype(np.float32),
            fine_nq=None,
            paper_nr=None,
            profile_mhf=chance.normal(level, 1, (len(LAYERS), HEADS, len(OF_PROFILE))).astype(np.float32),
            share_mhp=chance.normal(-6 + level, 1, (len(LAYERS), HEADS, len(pairs_of(profile_plan(length)).places))),
            vocabulary_v=chance.normal(level, 1, len(vocabulary.FEATURES)),
            state_sz=np.zeros((0, 0), np.float16),
            owner_c=np.zeros(0, int),
            text={name: float(np.exp(chance.normal(level, 0.3))) for name in OF_THE_TEXT},
            beside={},
            seconds=0.0,
        )
        for number in range(count)
    ]


def setting_of(length: int) -> Setting:
    return Setting(LadmConfig(span=length // 32, d_afs=4, d_cds=4), length, LAYERS, 6, LAYERS)


@pytest.fixture(scope="module")
def shipped() -> Calibration:
    """A calibration of one length."""
    chance = np.random.default_rng(0)
    pair_weights = PairWeights(
        layers=LAYERS,
        weights=tuple(tuple(tuple(chance.normal(0, 0.1, len(APART))) for _ in range(HEADS)) for _ in LAYERS),
        offsets=tuple(chance.normal(0, 1, len(APART))),
        usual=(0.0,) * len(APART),
    )
    of_features = {
        scale: FeatureWeights(weights=tuple(chance.normal(0, 1, len(FEATURES))), offset=1.0)
        for scale in ("spliced", "halves")
    }
    enough = (9.0,) * (len(vocabulary.FEATURES) + len(topics.FEATURES))
    made = Calibration(
        model="mine",
        model_digest="0" * 64,
        window_length=LENGTH,
        span=LENGTH // 32,
        d_afs=4,
        d_cds=4,
        layers=LAYERS,
        ablation="no-std",
        order=weights_of(LAYERS, chance, 2.0),
        coherence=Coherence(pairs=pair_weights, against=of_features, enough=enough),
        against={"spliced": weights_of(LAYERS, chance, 3.0)},
        documents=("d",),
    )
    real = windows_of_length(LENGTH, 40, 0.0)
    coherent_WF = coherent(setting_of(LENGTH), real, made.weights)
    read = np.concatenate(
        [
            np.stack([one.profile_mhf.astype(np.float64).mean(axis=1).ravel() for one in real]),
            np.array([[OF_THE_TEXT[name](one.text[name]) for name in COLUMNS] for one in real]),
            np.stack(coherent_WF),
        ],
        axis=1,
    )
    gate = fit_gate(LAYERS, Windows(read, [one.domain for one in real], [one.base for one in real]), coherent=True)
    return made.model_copy(update={"gate": gate})


def test_levels_are_those_of_the_real_windows_and_the_rest_is_kept(shipped: Calibration) -> None:
    real, setting = windows_of_length(OTHER, 30, 0.4), setting_of(OTHER)
    made = carried_over(shipped, setting, real)
    assert (made.window_length, made.span) == (OTHER, OTHER // 32)
    assert set(made.documents) == {"d", *(one.base for one in real)}
    assert made.coherence is not None
    assert shipped.coherence is not None
    assert made.coherence.pairs == shipped.coherence.pairs
    coherent_WF = coherent(setting, real, made.weights)
    for scale, one in made.coherence.against.items():
        assert one.weights == shipped.coherence.against[scale].weights
        assert np.median([made.coherence.parts(seen)[scale] for seen in coherent_WF]) == pytest.approx(0, abs=1e-5)
    for given, before in ((made.order, shipped.order), (made.against["spliced"], shipped.against["spliced"])):
        assert given is not None
        assert before is not None
        assert given.weights == before.weights
        assert np.median([profile_score(given, one.profile_mhf, LAYERS) for one in real]) == pytest.approx(0, abs=1e-5)


def test_the_gate_lies_about_the_real_windows_with_the_shape_that_it_had(shipped: Calibration) -> None:
    real, setting = windows_of_length(OTHER, 30, 0.4), setting_of(OTHER)
    made = carried_over(shipped, setting, real)
    before, gate = shipped.gate, made.gate
    assert before is not None
    assert gate is not None
    assert (gate.scale, gate.whitening, gate.whitening_of_text, gate.weights) == (
        before.scale,
        before.whitening,
        before.whitening_of_text,
        before.weights,
    )
    coherent_WF = coherent(setting, real, made.weights)
    read = features_read(gate, real, LAYERS, coherent_WF)
    domains = [one.domain for one in real]
    by_domain = [read[np.array(domains) == domain].mean(axis=0) for domain in sorted(set(domains))]
    np.testing.assert_allclose(gate.mean, np.mean(by_domain, axis=0), atol=1e-5)
    np.testing.assert_allclose(gate.mean, means(Windows(read, domains, domains)), atol=1e-5)
    there = unlikeness(gate, real, LAYERS, coherent_WF)
    assert np.median(there) == pytest.approx(0, abs=1e-5)
    assert there.max() <= gate.threshold + 1e-5
    assert gate.threshold >= before.threshold
    # Before, all of these windows were stranger than nearly all that the gate had been fitted on.
    assert np.median(unlikeness(before, real, LAYERS, coherent_WF)) > 1
    scores = {choice.formula: values for choice, values in calibrated_scores(setting, real, made).items()}
    assert np.isfinite(scores["calibrated"]).all()


def test_what_has_no_gate_cannot_be_carried_over(shipped: Calibration) -> None:
    with pytest.raises(ValueError, match="no gate"):
        carried_over(shipped.model_copy(update={"gate": None}), setting_of(OTHER), windows_of_length(OTHER, 3, 0.0))


def test_the_shipped_calibration_is_compared_on_documents_that_it_has_not_seen(shipped: Calibration) -> None:
    windows = windows_of_length(LENGTH, 6, level=0.0)
    setting = setting_of(LENGTH)
    (ranked,) = [v for k, v in calibrated_scores(setting, windows, shipped).items() if k.formula == "calibrated"]
    seen = shipped.model_copy(update={"documents": (f"{LENGTH}-2", "another")})
    ((choice, told),) = shipped_scores(setting, windows, seen).items()
    assert choice.formula == "shipped"
    assert np.isnan(told).tolist() == [number == 2 for number in range(6)]
    assert np.array_equal(np.delete(told, 2), np.delete(ranked, 2))
    most = shipped.model_copy(update={"documents": tuple(one.base for one in windows[:4])})
    assert shipped_scores(setting, windows, most) == {}
    assert shipped_scores(replace(setting, profile_layers=LAYERS[:1]), windows, seen) == {}
