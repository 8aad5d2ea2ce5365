"""Evaluation as arithmetic: AUC and its interval, stability, the choice of layers, the order weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ladm.flows.dag.lineage import Request
from ladm.flows.evaluation.verdict import verdict, worst_contrasts
from ladm.tasks.evaluation import fit
from ladm.tasks.evaluation.contrast_set import (
    CALIBRATE,
    CRUMBS,
    HALVES,
    INTERLEAVED,
    SHUFFLED,
    SPLICED,
    TEST,
    WHOLE,
    ContrastConfig,
)
from ladm.tasks.evaluation.fit import (
    choose_layers,
    coherence_of,
    fit_dependency,
    fit_order,
    gate_of,
    layers_allowed,
    profiled_layers,
    real_windows,
)
from ladm.tasks.evaluation.scores import Choice, Setting, all_scores, coherent, forward_passes, per_layer, unlikeness
from ladm.tasks.evaluation.stability import spearman, stability
from ladm.tasks.evaluation.table import ALL_DOMAINS, held_back, table
from ladm.tasks.manifest import Counts, Manifest, Shard
from ladm.tasks.models.resolve import ResolvedModel
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.coherence import FEATURES as COHERENCE
from ladm.tasks.scorers.coherence import pairs_of
from ladm.tasks.scorers.distance_profile import CELLS, DISTANCES, FEATURES, profile_plan
from ladm.tasks.scorers.gate import COLUMNS
from ladm.tasks.scorers.ladm import LadmConfig, dependency_scores, scoring_plan
from ladm.tasks.scorers.vocabulary import FEATURES as VOCABULARY
from ladm.tasks.stages.scan import STAGE, Measurement, ScanConfig, fine_plan, paper_config

LENGTH, LAYERS, HEADS = 400, 10, 2
CONFIG = LadmConfig(span=8, d_afs=4, d_cds=2)
SETTING = Setting(CONFIG, LENGTH, tuple(range(LAYERS)), LAYERS, (2, 3, 4, 5, 6))
PAIRS = sum(len(query.key_starts) for query in scoring_plan(CONFIG, LENGTH).queries)
FINE_PAIRS = sum(len(query.key_starts) for query in fine_plan(CONFIG, LENGTH).queries)
PAPER_PAIRS = sum(len(query.key_starts) for query in scoring_plan(paper_config(CONFIG), LENGTH).queries)
FAR = DISTANCES.index(20)
KINDS = {
    CALIBRATE: (WHOLE, SPLICED, SHUFFLED, HALVES, INTERLEAVED, CRUMBS),
    TEST: (WHOLE, SPLICED, SHUFFLED, HALVES, INTERLEAVED, "menus"),
}
GOOD = (4, 5)
"""Layers in which whole windows have more distant attention than spliced and halved ones."""


def measurement(chance: np.random.Generator, domain: str, number: int, kind: str, half: str) -> Measurement:
    pfs = chance.uniform(0.7, 1.3, size=(LAYERS, PAIRS))
    if kind not in (WHOLE, SHUFFLED, "menus"):
        pfs[list(GOOD)] *= 0.6
    profile = chance.normal(size=(len(SETTING.profile_layers), HEADS, len(FEATURES)))
    if kind not in (WHOLE, SHUFFLED, "menus"):
        profile[1, 0, FAR:] -= 1.5
        profile[1, 0, :FAR] += 100  # pieces meet: not to be looked at
    if kind == SHUFFLED:
        profile[-1, :, 3:9] -= 2
    owner_c = {
        SPLICED: np.arange(CELLS) // 20,
        HALVES: np.arange(CELLS) // 64,
        INTERLEAVED: np.arange(CELLS) // 16 % 2,
        CRUMBS: np.arange(CELLS) // 3 % 8,
    }.get(kind, np.zeros(CELLS, int))
    pairs = pairs_of(profile_plan(LENGTH))
    share = np.random.default_rng([number, *kind.encode()]).normal(
        -5, 1, size=(len(SETTING.profile_layers), HEADS, len(pairs.places))
    )
    share[0, 0] -= 1.5 * (owner_c[pairs.query] != owner_c[pairs.key])
    text = {name: float(chance.uniform(0.4, 0.6)) for name in COLUMNS}
    if kind == "menus":
        text = {name: value * 3 for name, value in text.items()}
    return Measurement(
        base=f"{domain}{number}",
        domain=domain,
        kind=kind,
        half=half,
        documents=(f"{domain}{number}",),
        pfs_np=pfs.astype(np.float32),
        fine_nq=chance.uniform(0.7, 1.3, size=(LAYERS, FINE_PAIRS)).astype(np.float32) if kind == WHOLE else None,
        paper_nr=chance.uniform(0.5, 1.5, size=(LAYERS, PAPER_PAIRS)).astype(np.float32),
        profile_mhf=profile.astype(np.float32),
        share_mhp=share.astype(np.float16),
        vocabulary_v=np.zeros(len(VOCABULARY), np.float32),
        state_sz=np.zeros((0, 0), np.float16),
        owner_c=owner_c if kind != "menus" else np.array([], int),
        text=text,
        beside={"random": float(chance.random())} if number < 3 else {},
        seconds=1.0,
    )


@pytest.fixture(scope="module")
def found() -> list[Measurement]:
    chance = np.random.default_rng(0)
    return [
        measurement(chance, domain, number, kind, half)
        for domain in ("Books", "Dictionaries")
        for half, numbers in ((CALIBRATE, range(12)), (TEST, range(12, 20)))
        for number in numbers
        for kind in KINDS[half]
    ]


def test_scores_by_layer_are_the_published_formula() -> None:
    one = measurement(np.random.default_rng(1), "Books", 0, WHOLE, TEST)
    plan = scoring_plan(CONFIG, LENGTH)
    expected = [dependency_scores(CONFIG, plan, layer_p[None])[0] for layer_p in one.pfs_np]
    np.testing.assert_allclose(per_layer(SETTING, [one], "none")[0], expected, rtol=1e-5)
    fine = CONFIG.model_copy(update={"d_afs": 2, "d_cds": 1})
    assert one.fine_nq is not None
    expected = [dependency_scores(fine, scoring_plan(fine, LENGTH), layer_q[None])[0] for layer_q in one.fine_nq]
    np.testing.assert_allclose(per_layer(SETTING, [one], "none", fine=True)[0], expected, rtol=1e-5)


def test_auc_counts_pairs_within_domains(found: list[Measurement]) -> None:
    choice = Choice("ladm", "made-up", "all", None)
    values = np.zeros(len(found))
    for place, one in enumerate(found):
        number = int(one.base.removeprefix(one.domain))
        # Books: every whole window above every spliced one. Dictionaries: ties alone. A domain's level says nothing.
        values[place] = 100 + number + 50 * (one.kind == WHOLE) if one.domain == "Books" else 7
    rows = {(row["contrast"], row["domain"]): row for row in table(SETTING, found, {choice: values}, ContrastConfig())}
    assert rows["spliced", "Books"]["auc"] == 1.0
    # Eight documents that are all told do not tell how sure that is.
    assert (rows["spliced", "Books"]["auc_low"], rows["spliced", "Books"]["auc_high"]) == (None, None)
    assert rows["menus", "Books"]["auc"] == 1.0
    assert rows["spliced", "Dictionaries"]["auc"] == 0.5
    assert rows["spliced", ALL_DOMAINS]["auc"] == 0.75
    assert rows["spliced", "Books"]["pairs"] == 64
    assert rows["spliced", ALL_DOMAINS]["pairs"] == 128
    assert rows["lists", "Dictionaries"]["auc"] == 1.0
    assert ("lists", "Books") not in rows
    assert {row["half"] for row in rows.values()} == {TEST}
    assert list(rows["spliced", "Books"]) == [
        *("contrast", "domain", "scorer", "formula", "layers", "auc", "auc_low", "auc_high", "pairs"),
        *("forward_passes", "half"),
    ]


def test_intervals_hold_the_auc_and_are_reproduced(found: list[Measurement]) -> None:
    chance = np.random.default_rng(2)
    values = chance.normal(size=len(found)) + [one.kind == WHOLE for one in found]
    scores = {Choice("ladm", "made-up", "all", None): values}
    rows = table(SETTING, found, scores, ContrastConfig())
    assert rows == table(SETTING, found, scores, ContrastConfig())
    assert rows != table(SETTING, found, scores, ContrastConfig(seed=1))
    for row in rows:
        told = [row[name] for name in ("auc_low", "auc", "auc_high") if row[name] is not None]
        assert told == sorted(told)
        assert len(told) in (1, 3)
    assert all(row["auc_low"] is not None for row in rows if (row["contrast"], row["domain"]) == ("spliced", "all"))
    few = [one for one in found if int(one.base.removeprefix(one.domain)) < 14 and one.domain == "Books"]
    for row in table(SETTING, few, {Choice("ladm", "made-up", "all", None): np.arange(len(few))}, ContrastConfig()):
        assert (row["auc_low"], row["auc_high"]) == (None, None), "two documents"
    assert any(row["auc_high"] - row["auc_low"] > 0.2 for row in rows if row["auc_low"] is not None)


def test_scorers_measured_on_some_documents_are_compared_on_those(found: list[Measurement]) -> None:
    scores = all_scores(SETTING, found, None)
    rows = table(SETTING, found, scores, ContrastConfig(), CALIBRATE)
    (row,) = [r for r in rows if (r["scorer"], r["contrast"], r["domain"]) == ("random", "spliced", "Books")]
    assert row["pairs"] == 9
    assert row["forward_passes"] == 0
    assert not [r for r in table(SETTING, found, scores, ContrastConfig()) if r["scorer"] == "random"]


@pytest.mark.parametrize("missing", [WHOLE, SPLICED])
def test_a_domain_of_which_one_kind_is_left_out_says_nothing_and_stops_nothing(
    found: list[Measurement], missing: str
) -> None:
    left = [one for one in found if (one.domain, one.kind) != ("Dictionaries", missing)]
    assert choose_layers(SETTING, left).auc == choose_layers(SETTING, [o for o in found if o.domain == "Books"]).auc
    scores = {Choice("ladm", "made-up", "all", None): np.arange(len(left), dtype=float)}
    rows = table(SETTING, left, scores, ContrastConfig())
    assert {row["domain"] for row in rows if row["contrast"] == SPLICED} == {"Books", ALL_DOMAINS}
    nothing = [one for one in found if one.kind != missing]
    assert choose_layers(SETTING, nothing).auc == 0.5
    assert not [row for row in table(SETTING, nothing, {}, ContrastConfig()) if row["contrast"] == SPLICED]


def test_costs_count_the_layers_run() -> None:
    assert forward_passes(SETTING, Choice("ladm", "published", "all", None)) == 1
    assert forward_passes(SETTING, Choice("ladm", "no-std", "3-5", 5)) == 0.525
    assert forward_passes(SETTING, Choice("gzip", "gzip", "–", -1)) == 0


def calibration_of(found: list[Measurement], **more: Any) -> Calibration:
    chosen = choose_layers(SETTING, found)
    about = {"model": "m", "model_digest": "d", "window_length": LENGTH, "span": 8, "d_afs": 4, "d_cds": 2}
    return Calibration(**about, layers=chosen.layers, ablation=chosen.ablation, **more)


def test_the_layers_that_tell_are_chosen_and_hold_on_the_other_half(found: list[Measurement]) -> None:
    chosen = choose_layers(SETTING, found)
    assert set(chosen.layers) & set(GOOD)
    assert max(chosen.layers) + 0.25 <= 0.63 * LAYERS
    assert chosen.auc > 0.97
    # The testing half has no say.
    spoilt = [dataclasses.replace(one, pfs_np=one.pfs_np[::-1]) if one.half == TEST else one for one in found]
    assert choose_layers(SETTING, spoilt) == chosen
    calibration = calibration_of(found, order=fit_order(SETTING, found))
    rows = table(SETTING, found, all_scores(SETTING, found, calibration), ContrastConfig())
    pooled = [row for row in rows if row["domain"] == ALL_DOMAINS]
    by = {(row["formula"], row["contrast"]): row["auc"] for row in pooled if row["formula"] in ("calibrated", "order")}
    assert by["calibrated", "spliced"] > 0.97
    assert by["calibrated", HALVES] > 0.97
    assert by["calibrated", SHUFFLED] < 0.8
    assert by["order", SHUFFLED] > 0.9


def test_dependency_is_weighed_by_far_attention_where_that_is_better(found: list[Measurement]) -> None:
    weights = fit_dependency(SETTING, found, to_beat=0.9)
    assert weights is not None
    weights_nhf = np.array(weights.weights)
    assert not weights_nhf[:, :, :FAR].any()
    assert weights_nhf[1, 0, FAR:-2].min() > 0
    assert weights_nhf[1, 0].mean() > 2 * np.abs(np.delete(weights_nhf.reshape(10, -1), 2, axis=0)).mean()
    # The testing half has no say, nor have windows of two halves.
    others = [one for one in found if one.half == CALIBRATE and one.kind != HALVES]
    assert fit_dependency(SETTING, others, to_beat=0.9) == weights
    rows = table(
        SETTING, found, all_scores(SETTING, found, calibration_of(found, dependency=weights)), ContrastConfig()
    )
    by = {(row["formula"], row["contrast"]): row["auc"] for row in rows if row["domain"] == ALL_DOMAINS}
    assert by["calibrated", "spliced"] > 0.9
    assert by["calibrated-layers", "spliced"] > 0.97
    assert fit_dependency(SETTING, found, to_beat=1.5) is None
    nothing = [dataclasses.replace(one, profile_mhf=np.ones_like(one.profile_mhf)) for one in found]
    assert fit_dependency(SETTING, nothing, to_beat=0.9) is None
    assert fit_dependency(SETTING, found[:4], to_beat=0.5) is None


def test_too_little_to_fit(found: list[Measurement]) -> None:
    assert fit_order(SETTING, found[:4]) is None
    with pytest.raises(ValueError, match="calibrating half is empty"):
        choose_layers(SETTING, [one for one in found if one.half == TEST])


def test_the_gate_and_the_dependency_against_every_scale(found: list[Measurement]) -> None:
    config = ContrastConfig(lists="nothing")
    chance = np.random.default_rng(3)
    more = [
        measurement(chance, domain, number, kind, CALIBRATE)
        for domain in ("Books", "Dictionaries")
        for number in range(20, 40)
        for kind in KINDS[CALIBRATE]
    ]
    enough = [*found, *more]
    assert gate_of(SETTING, config, found[:40]) is None, "too few real windows"
    gate = gate_of(SETTING, config, enough)
    assert gate is not None
    assert gate.windows == len(real_windows(config, enough)) == 64
    assert {one.domain for one in real_windows(ContrastConfig(), enough)} == {"Books"}, "lists are no real text"
    fitted = coherence_of(SETTING, config, enough)
    assert fitted is not None
    coherence = fitted.coherence
    assert set(coherence.against) == {SPLICED, HALVES, INTERLEAVED, CRUMBS}
    assert gate_of(SETTING, config, enough, fitted) == gate, "too few windows to know their coherence by"
    calibration = calibration_of(
        enough, coherence=coherence, gate=gate, dependency=fit_dependency(SETTING, enough, 0.5)
    )
    scores = all_scores(SETTING, enough, calibration)
    rows = table(SETTING, enough, scores, config)
    by = {(row["formula"], row["contrast"]): row["auc"] for row in rows if row["domain"] == ALL_DOMAINS}
    assert by["calibrated", SPLICED] > 0.9
    assert by["dependency", HALVES] > 0.9
    assert by["dependency", INTERLEAVED] > 0.9
    assert by["dependency", "menus"] < 0.9, "an odd text is nothing to dependency"
    assert by["calibrated", "menus"] > 0.9
    ranked = next(values for choice, values in scores.items() if choice.formula == "calibrated")
    coherent_WE = coherent(SETTING, enough, calibration.weights)
    out = unlikeness(gate, enough, SETTING.profile_layers, coherent_WE) > gate.threshold
    assert np.isneginf(ranked[out]).all()
    assert np.isfinite(ranked[~out]).all()
    shares = held_back(calibration, SETTING, enough)
    assert [(one["domain"], one["windows"]) for one in shares] == [("Books", 8), ("Dictionaries", 8)]
    assert held_back(None, SETTING, enough) == []
    # Without a dependency the gate still holds back.
    bare = calibration_of(enough, gate=gate)
    (by_layers,) = (v for choice, v in all_scores(SETTING, enough, bare).items() if choice.formula == "calibrated")
    assert np.isneginf(by_layers[out]).all()
    assert coherence_of(SETTING, config, []) is None
    assert coherence_of(SETTING, config, found[:20]) is None, "too few windows"
    # The testing half and lists have no say.
    calibrating = [one for one in enough if one.half == CALIBRATE]
    again = coherence_of(SETTING, config, calibrating)
    assert again is not None
    assert again.coherence == coherence
    books = [one for one in enough if one.domain == "Books"]
    with_lists, without = (coherence_of(SETTING, ContrastConfig(), some) for some in (enough, books))
    assert with_lists is not None
    assert without is not None
    assert with_lists.coherence == without.coherence


def test_a_gate_of_many_windows_reads_their_coherence(
    found: list[Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "ENOUGH_FOR_COHERENCE", 24)
    config, chance = ContrastConfig(lists="nothing"), np.random.default_rng(3)
    enough = found + [
        measurement(chance, domain, number, kind, CALIBRATE)
        for domain in ("Books", "Dictionaries")
        for number in range(20, 40)
        for kind in KINDS[CALIBRATE]
    ]
    fitted = coherence_of(SETTING, config, enough)
    assert fitted is not None
    gate = gate_of(SETTING, config, enough, fitted)
    assert gate is not None
    assert gate.coherence == COHERENCE
    calibration = calibration_of(enough, coherence=fitted.coherence, gate=gate)
    broken = [dataclasses.replace(one, share_mhp=one.share_mhp + 9) for one in enough if one.kind == WHOLE]
    near, far = (
        unlikeness(gate, some, SETTING.profile_layers, coherent(SETTING, some, calibration.weights))
        for some in ([one for one in enough if one.kind == WHOLE], broken)
    )
    assert (far > near).all(), "they hang together as no text does"


def test_the_verdict_names_the_worst_contrast(found: list[Measurement]) -> None:
    def row(formula: str, contrast: str, auc: float, scorer: str = "ladm") -> dict[str, Any]:
        return {
            "scorer": scorer,
            "formula": formula,
            "layers": "all",
            "contrast": contrast,
            "domain": "all",
            "auc": auc,
        }

    rows = [
        *(row("published", contrast, auc) for contrast, auc in (("spliced", 0.7), ("shuffled", 0.1), ("menus", 0.31))),
        *(
            row("calibrated", contrast, auc)
            for contrast, auc in (("spliced", 0.97), ("shuffled", 0.2), ("menus", 0.98))
        ),
        *(row("order", contrast, auc) for contrast, auc in (("spliced", 0.9), ("shuffled", 0.8), ("menus", 0.9))),
        row("gzip", "spliced", 1.0, "gzip"),
    ]
    worst = {one.choice[1]: (one.row["contrast"], one.row["auc"]) for one in worst_contrasts(rows)}
    assert worst["order"] == ("shuffled", 0.8)
    assert worst["calibrated"] == ("spliced", 0.97)
    assert verdict(rows) == (
        "verdict: rank by the calibration: its worst contrast is spliced (0.97); "
        "published, all layers: menus (0.31), not fit to rank a crawl"
    )
    assert verdict(rows[:3]) == (
        "verdict: nothing here is fit to rank a crawl; the best is published, all layers, "
        "its worst contrast menus (0.31)"
    )
    assert verdict([]) == "verdict: none, since nothing was measured"


def test_spearman_and_stability(found: list[Measurement]) -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 25]) == pytest.approx(0.8)
    assert np.isnan(spearman([1, 2], [1, 2]))
    rounded = {one.base: one for one in found if one.kind == WHOLE and one.base.endswith("1")}
    rows = stability(SETTING, found, rounded, calibration_of(found))
    by = {(row["formula"], row["against"]): row for row in rows}
    assert by["published", "bfloat16"]["spearman"] == 1.0
    assert by["published", "bfloat16"]["windows"] == len(rounded)
    assert by["no-std", "strides halved"]["spearman"] < 1
    assert by["calibrated", "strides halved"]["windows"] == 40
    assert by["no-std", "half the windows: AUC by layer"]["windows"] == LAYERS


def test_layers_measured_of_some_windows_are_compared_on_those(found: list[Measurement]) -> None:
    assert layers_allowed(SETTING) == (0, 1, 2, 3, 4, 5, 6)
    assert profiled_layers(SETTING) == (2, 3, 4, 5, 6)
    late = slice(7, None)

    def cut(one: Measurement) -> Measurement:
        pfs_np = one.pfs_np.copy()
        pfs_np[late] = np.nan
        return dataclasses.replace(one, pfs_np=pfs_np, paper_nr=None)

    some = [cut(one) if int(one.base.removeprefix(one.domain)) >= 15 else one for one in found]
    assert choose_layers(SETTING, some) == choose_layers(SETTING, found)
    rows = table(SETTING, some, all_scores(SETTING, some, None), ContrastConfig())
    pairs = {
        (row["formula"], row["layers"]): row["pairs"]
        for row in rows
        if (row["scorer"], row["contrast"], row["domain"]) == ("ladm", "spliced", "Books")
    }
    assert pairs["published", "all"] == pairs["paper", "all"] == pairs["no-std", "9"] == 9
    assert pairs["published", "5"] == 64
    rounded = {one.base: one for one in some if one.kind == WHOLE}
    by = {(row["formula"], row["against"]): row for row in stability(SETTING, some, rounded, None, native=False)}
    assert by["published", "bfloat16 (rounded in float32)"] == {
        "formula": "published", "layers": "0-9", "against": "bfloat16 (rounded in float32)", "spearman": 1.0,
        "windows": 30,
    }  # fmt: skip
    assert by["published", "half the windows: AUC by layer"]["windows"] == LAYERS
    assert np.isfinite(by["published", "half the windows: AUC by layer"]["spearman"])


def test_shards_whose_keys_begin_alike_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shards of a contrast set with the same 8 digits: each has its own measurements, in the order asked for."""
    from ladm.flows.config import load_config
    from ladm.flows.dag.preflight import Plan
    from ladm.flows.evaluation import evaluate

    def shard(key: str) -> Shard:
        return Shard(key=key, path=f"x/{key}", bytes=1, rows=1)

    class Done:
        """A DAG that measures a shard by naming it."""

        def __init__(self) -> None:
            self.record = SimpleNamespace(done=[], failures=[])

        def offer(self, request: Request) -> None:
            (one,), job = request.job.inputs["windows"], request.job
            shards = [shard(f"measured {one.key}")]
            counts = Counts(received=1, kept=1)
            key = STAGE.key(job)
            manifest = Manifest(stage="scan", key=key, label=job.label, shards=shards, counts=counts, seconds=0)
            self.record.done.append(SimpleNamespace(manifest=manifest))

        def drain(self) -> None:
            pass

        mend = drain

    config = load_config(None, [], str(tmp_path))
    model = ResolvedModel("mine", tmp_path, "digest", "tokenizer")
    question: Any = SimpleNamespace(
        plan=Plan(config, "tokenize", ("tokenize",), [], model),
        console=SimpleNamespace(expect_windows=print),
        layers=(0,),
    )
    monkeypatch.setattr(evaluate, "read_measurements", lambda store, shards, *_: [one.key for one in shards])
    asked = ScanConfig(span=16, d_afs=2, d_cds=2, kinds=(WHOLE,), layers=(0,))
    keys = ["aaaaaaaa1", "aaaaaaaa2", "b", "aaaaaaaa0"]
    found: Any = evaluate._scan(Done(), question, [shard(key) for key in keys], asked)  # type: ignore[arg-type]
    assert found == [f"measured {key}" for key in keys]
