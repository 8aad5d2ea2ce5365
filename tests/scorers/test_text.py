"""Columns of the text: runs of tokens that come again, counted against a plain count of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ladm.tasks.scorers.text import text_columns

GRAM = 6


def plainly(ids_L: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The shares of runs that begin earlier in the window, and a quarter of it earlier, by a dictionary of runs."""
    first: dict[tuple[int, ...], int] = {}
    back = []
    for place in range(len(ids_L) - GRAM + 1):
        run = tuple(ids_L[place : place + GRAM].tolist())
        back.append(place - first.setdefault(run, place))
    return sum(one >= 1 for one in back) / len(back), sum(one >= max(1, len(ids_L) // 4) for one in back) / len(back)


@pytest.mark.parametrize("length", [GRAM, GRAM + 1, 100, 1024, 4096])
@pytest.mark.parametrize("words", [1, 2, 5, 40_000])
def test_repeated_runs_are_those_of_a_plain_count(length: int, words: int) -> None:
    """Whether all runs are alike, many are, or hardly any."""
    ids_L = np.random.default_rng(length + words).integers(words, size=length)
    ids_L[length // 2 : length // 2 + length // 4] = ids_L[: length // 4]
    found = text_columns(ids_L, "a")
    assert (found["repeated_ngrams"], found["repeated_ngrams_far"]) == plainly(ids_L)


def test_runs_that_share_a_slot_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a table far too small, nearly every run finds another one where it looks."""
    monkeypatch.setattr("ladm.tasks.scorers.text._ROOM", 0)
    ids_L = np.random.default_rng(0).integers(3, size=2000)
    found = text_columns(ids_L, "a")
    assert (found["repeated_ngrams"], found["repeated_ngrams_far"]) == plainly(ids_L)
