"""Scores from Python: of texts and token ids, by a calibration and by the formula, and pictures of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import Corpus, gated_calibration, sentence
from test_python_runs import values_of

import ladm
from ladm.tasks.errors import ConfigError


def texts(*words: int) -> list[str]:
    return [sentence(random.Random(number), count) for number, count in enumerate(words)]


def test_texts_of_any_length_have_a_row(tiny_model: Path) -> None:
    scores = ladm.score(texts(400, 5, 900), model=str(tiny_model), window=256, take="all")
    rows = scores.to_pylist()
    assert [row["text"] for row in rows] == sorted(row["text"] for row in rows)
    assert {row["text"] for row in rows} == {0, 1, 2}
    (short,) = [row for row in rows if row["text"] == 1]
    assert short["score"] is None
    assert "fewer than a window of 256" in short["note"]
    long = [row for row in rows if row["text"] != 1]
    assert all(row["score"] == row["cds"] > 0 and row["note"] == "" for row in long)
    assert len(long) > 2
    printed = repr(scores)
    assert "fewer than a window of 256" in printed
    assert "score" in printed.splitlines()[0]
    assert ladm.score("too short", model=str(tiny_model), window=256).to_pylist()[0]["score"] is None
    assert ladm.score([], model=str(tiny_model), window=256).to_pylist() == []


def test_token_ids_are_scored_as_their_text_is(tiny_model: Path) -> None:
    from ladm.tasks.models.resolve import resolve_model
    from ladm.tasks.tokenizing.tokenizer import load_tokenizer

    some = texts(400, 500)
    ids = [load_tokenizer(resolve_model(str(tiny_model))).encode(text).ids for text in some]
    expected = [row["score"] for row in ladm.score(some, model=str(tiny_model), window=256).to_pylist()]
    array = np.array([one[:256] for one in ids])
    for given in (ids, array, pa.array(ids), [np.array(one) for one in ids]):
        assert [row["score"] for row in ladm.score(given, model=str(tiny_model), window=256).to_pylist()] == expected
    one = ladm.score(ids[0], model=str(tiny_model), window=256).to_pylist()
    assert one[0]["score"] == pytest.approx(expected[0], rel=1e-5)
    odd = ladm.score([[5] * 100, [10**6] * 300, []], model=str(tiny_model), window=256).to_pylist()
    assert [row["score"] for row in odd] == [None] * 3
    assert "the model knows 0 to" in odd[1]["note"]


def test_it_is_the_score_that_a_run_ranks_by(tmp_path: Path, corpus: Corpus, tiny_model: Path) -> None:
    calibration = tmp_path / "calibration.json"
    calibration.write_text(gated_calibration(tiny_model, 256, 16).model_dump_json())
    chosen: dict[str, Any] = {"layers": "calibrated", "calibration": str(calibration)}
    run = ladm.run(values_of(corpus, tmp_path / "store"), scorer=chosen, select={"where": None}, progress=False)
    rows = run.sql("select text, score from ranking join documents using (doc_id) order by doc_id").to_pylist()
    scores = ladm.score([row["text"] for row in rows], model=str(tiny_model), window=256, **chosen).to_pylist()
    assert len(rows) == 7
    assert [row["score"] for row in scores] == pytest.approx([row["score"] for row in rows], rel=1e-5)
    assert all(row["gate_distance"] is not None for row in scores)
    strict = gated_calibration(tiny_model, 256, 16, threshold=-1e6)
    calibration.write_text(strict.model_dump_json())
    held = ladm.score(rows[0]["text"], model=str(tiny_model), window=256, **chosen).to_pylist()
    assert "a run holds it back" in held[0]["note"]


def test_a_picture_of_a_window(tmp_path: Path, tiny_model: Path) -> None:
    scores = ladm.score(texts(5, 400), model=str(tiny_model), window=256)
    picture = scores.heatmap(1)
    assert picture.pfs.shape == (32, 32)
    assert picture.span == 8
    later = np.triu_indices(32, 1)
    assert np.isnan(picture.pfs[later]).all()
    assert np.nanmax(picture.pfs) > 0
    where = picture.save(str(tmp_path / "picture.svg"))
    drawn = Path(where).read_text()
    assert drawn.startswith("<svg")
    assert "xmlns=" in drawn
    assert "var(--" not in drawn
    assert "<svg" in picture._repr_html_()
    with pytest.raises(ConfigError, match="row 0 has no window"):
        scores.heatmap(0)
    with pytest.raises(ConfigError, match="there is no row 2"):
        scores.heatmap(2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"window": 4}, "window.length"),
        ({"window": "long"}, "window: input should be a valid integer"),
        ({"window": 5000}, "2048 positions"),
        ({"take": "best"}, "take"),
        ({"layers": [7]}, "no layer 7"),
        ({"model": "no-such-folder/model"}, "scorer.model"),
        ({"spam": 1}, "spam: unknown key"),
        ({"texts": 3}, "texts: int is neither"),
        ({"texts": [None]}, r"texts\[0\]: NoneType"),
        ({"texts": [[0.5] * 300]}, r"texts\[0\]: list"),
    ],
)
def test_mistakes_are_told_in_one_line(tiny_model: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as told:
        ladm.score(**{"texts": texts(400), "model": str(tiny_model), "window": 256, **given})
    assert "\n" not in str(told.value)
