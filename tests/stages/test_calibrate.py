"""A run's own calibration: made once, of real text alone, told of, and refused where there is too little."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Answer, Corpus, run_arguments, write_jsonl

from ladm.tasks.evaluation import own_calibration
from ladm.tasks.evaluation.carry_over import can_be_carried
from ladm.tasks.evaluation.gate import FEWEST_WINDOWS, Windows, fit_gate
from ladm.tasks.evaluation.reference import real_text
from ladm.tasks.evaluation.sample_windows import PACKAGE, sample_digest
from ladm.tasks.scorers import loaded_calibration
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.distance_profile import FEATURES
from ladm.tasks.scorers.gate import COLUMNS, Gate

Cli = Callable[..., Answer]
OWN = ["scorer.layers=own", "calibrate.windows=30"]


def calibration_file(store: Path, record: dict) -> dict:
    (job,) = [job for job in record["shards"] if job["stage"] == "calibrate"]
    (file,) = job["files"]
    return json.loads((store / file["path"]).read_bytes())


def test_a_run_calibrates_once_and_later_runs_go_by_it_whatever_the_corpus_has_become(
    tmp_path: Path, corpus: Corpus, ladm: Cli
) -> None:
    store, own = tmp_path / "store", ["scorer.layers=own", "calibrate.windows=60"]
    first = ladm(*run_arguments(corpus, store, *own))
    assert first.code == 0, first.err
    stages = first.record["stages"]
    assert stages["contrast"]["run"] == stages["calibrate"]["run"] == 1
    assert stages["scan"]["kept"] == stages["calibrate"]["in"]
    assert stages["score"]["kept"] == stages["gate"]["kept"] == 7
    made = calibration_file(store, first.record)
    assert made["made_from"]["whole_windows_of_the_sample"] >= FEWEST_WINDOWS // 2
    assert made["made_from"]["windows"] == stages["calibrate"]["kept"]
    assert made["gate"]["windows"] == (
        made["made_from"]["whole_windows_of_the_sample"] + made["made_from"]["whole_windows_of_the_corpus"]
    )
    assert {"spliced", "halves", "interleaved", "crumbs"} <= {row["contrast"] for row in made["expected"]}
    assert {"base64", "menus", "log"} & {row["contrast"] for row in made["expected"]}, (
        "junk, which nothing is fitted on"
    )
    # A new file: it is scored by the same calibration, and nothing else is scored or calibrated again.
    write_jsonl(corpus.folder / "new.jsonl", "Letters", 9, [400, 500])
    second = ladm(*run_arguments(corpus, store, *own)).record
    assert second["stages"]["calibrate"] | {"seconds": 0} == stages["calibrate"] | {"run": 0, "cached": 1, "seconds": 0}
    assert second["stages"]["scan"]["run"] == second["stages"]["contrast"]["run"] == 0
    assert second["stages"]["score"]["run"] == 1
    assert calibration_file(store, second) == made
    # Another seed makes another one.
    third = ladm(*run_arguments(corpus, store, *own, "calibrate.seed=1"), "--until", "calibrate").record
    assert third["stages"]["calibrate"]["run"] == 1
    assert calibration_file(store, third) != made


def test_the_plan_of_a_run_that_calibrates(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    _, *settings = run_arguments(corpus, store, *OWN)
    before = {one["stage"]: one for one in json.loads(ladm("plan", *settings).out)["stages"]}
    assert [before[stage]["todo"] for stage in ("contrast", "scan", "calibrate")] == [1, 8, 1]
    assert before["scan"]["seconds"] > 0
    assert ladm("run", *settings).code == 0
    after = {one["stage"]: one for one in json.loads(ladm("plan", *settings).out)["stages"]}
    assert {one["todo"] for one in after.values()} == {0}
    assert after["calibrate"]["cached"] == 1


def test_a_damaged_calibration_is_made_again_the_same(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    first = ladm(*run_arguments(corpus, store, *OWN)).record
    made = calibration_file(store, first)
    (path,) = (store / "calibrate").rglob("*.json")
    path.write_bytes(path.read_bytes()[:-10] + b"0" * 10)
    again = ladm(*run_arguments(corpus, store, *OWN))
    assert again.code == 0, again.err
    assert calibration_file(store, again.record) == made
    assert again.record["stages"]["scan"]["run"] == again.record["stages"]["score"]["run"] == 0


def test_where_no_calibration_is_shipped_the_default_makes_one(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    settings = ["scorer.layers=fitting", "calibrate.windows=30"]
    answer = ladm(*run_arguments(corpus, tmp_path / "store", *settings), "--until", "score")
    assert answer.code == 0, answer.err
    assert answer.record["stages"]["calibrate"]["run"] == 1
    assert answer.record["config"]["scorer"]["layers"] == "own"


def test_too_few_windows_are_refused_in_one_line(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    answer = ladm(*run_arguments(corpus, tmp_path / "store", "scorer.layers=own", "calibrate.windows=6"))
    assert answer.code == 1
    (failure,) = answer.record["failures"]
    assert failure["stage"] == "calibrate"
    assert f"where {FEWEST_WINDOWS} are needed" in failure["error"]
    assert "set scorer.layers=all" in failure["error"]


@pytest.mark.parametrize("setting", ["scorer.formula=paper", "scorer.ablation=no-std", "window.length=100"])
def test_what_cannot_be_calibrated_is_refused_before_any_work(
    tmp_path: Path, corpus: Corpus, ladm: Cli, setting: str
) -> None:
    answer = ladm(*run_arguments(corpus, tmp_path / "store", "scorer.layers=own", "scorer.span=4", setting))
    assert answer.code == 2
    assert "scorer.layers: own needs" in answer.err


def features(count: int, seed: int, middle: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(middle, 1, (count, 5 * len(FEATURES) + len(COLUMNS)))


def fitted(windows: Windows) -> Gate | None:
    return fit_gate((0, 1, 2, 3, 4), windows)


def test_junk_of_a_corpus_teaches_the_gate_nothing() -> None:
    sample, texts, junk = features(30, 0, 0.0), features(20, 1, 0.3), features(20, 2, 4.0)
    windows = Windows(
        np.concatenate([sample, texts, junk]),
        ["sample/A", "sample/B", "sample/C"] * 10 + ["Web"] * 40,
        [str(number) for number in range(70)],
    )
    real = real_text(fitted, windows, np.arange(70) < 30)
    assert real[:30].all()
    assert real[30:50].mean() > 0.8
    assert not real[50:].any()


def test_without_a_sample_that_is_long_enough_most_of_the_corpus_decides() -> None:
    windows = Windows(
        np.concatenate([features(40, 1, 0.0), features(8, 2, 6.0)]), ["Web"] * 48, [str(number) for number in range(48)]
    )
    real = real_text(fitted, windows, np.zeros(48, bool))
    assert real[:40].mean() > 0.8
    assert not real[40:].any()


def test_the_sample_is_known_by_its_content() -> None:
    assert len(sample_digest(PACKAGE)) == 64


def test_a_shipped_calibration_is_carried_over_to_another_window(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def ship(calibration: dict) -> None:
        length = calibration["window_length"]
        monkeypatch.setattr(loaded_calibration, "_shipped", lambda *_: {length: ("shipped", calibration)})
        loaded_calibration.nearest_calibration.cache_clear()

    request.addfinalizer(loaded_calibration.nearest_calibration.cache_clear)
    first = ladm(*run_arguments(corpus, tmp_path / "store", *OWN), "--until", "calibrate")
    shipped = calibration_file(tmp_path / "store", first.record)
    assert "carried_from" not in shipped["made_from"]
    ship(shipped)
    other = ["window.length=128", "scorer.span=4", "scorer.layers=own", "calibrate.windows=60"]
    for clearly, taken in ((1.0, True), (-1.0, False)):
        monkeypatch.setattr(own_calibration, "CLEARLY", clearly)
        store = tmp_path / f"store-{taken}"
        answer = ladm(*run_arguments(corpus, store, *other))
        assert answer.code == 0, answer.err
        made = calibration_file(store, answer.record)
        assert (made["made_from"].get("carried_from") == shipped["window_length"]) is taken
        assert ("carried over from the one shipped for 256 tokens" in answer.err) is taken
        assert (made["coherence"]["pairs"] == shipped["coherence"]["pairs"]) is taken
        assert (made["window_length"], made["span"], made["model_digest"]) == (128, 4, shipped["model_digest"])
        assert {"spliced", "halves", "interleaved", "crumbs"} <= {row["contrast"] for row in made["expected"]}
        assert answer.record["stages"]["gate"]["kept"] == answer.record["stages"]["score"]["kept"] > 0
    # Another shipped calibration is carried over anew; the same one is not.
    again = ladm(*run_arguments(corpus, store, *other), "--until", "calibrate").record
    assert again["stages"]["calibrate"]["cached"] == 1
    ship(shipped | {"seed": shipped["seed"] + 1})
    anew = ladm(*run_arguments(corpus, store, *other), "--until", "calibrate").record
    assert anew["stages"]["calibrate"]["run"] == 1
    assert anew["stages"]["scan"]["run"] == 0


def test_a_calibration_that_reads_what_was_not_measured_is_not_carried_over(
    tmp_path: Path, corpus: Corpus, ladm: Cli
) -> None:
    first = ladm(*run_arguments(corpus, tmp_path / "store", *OWN), "--until", "calibrate")
    made = Calibration.model_validate(calibration_file(tmp_path / "store", first.record))
    layers, states_of = made.profiled, made.weights.states_of
    assert can_be_carried(made, layers, states_of)
    assert not can_be_carried(made, layers[1:], states_of)
    assert not can_be_carried(made.model_copy(update={"gate": None}), layers, states_of)
    assert not can_be_carried(made.model_copy(update={"coherence": None}), layers, states_of)
