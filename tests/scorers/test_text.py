"""Columns of the text: runs of tokens that come again, counted against a plain count of them."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from ladm.tasks.scorers.text import EVEN_CLUMPING, recurrence, text_columns

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


@pytest.mark.parametrize("highest", [3, 40, 70_000, 2**31 - 1])
@pytest.mark.parametrize("length", [1, 2, 300, 5000])
def test_how_tokens_come_again_is_what_counting_finds(highest: int, length: int) -> None:
    numbers = np.random.default_rng(length).integers(0, highest, length)
    numbers[length // 2 :] = numbers[: length - length // 2]
    ids = numbers.astype(np.int32)
    times = Counter(ids.tolist())
    last: dict[int, int] = {}
    ways = []
    for place, token in enumerate(ids.tolist()):
        if token in last and times[token] <= 20:
            ways.append((place - last[token]) * (times[token] + 1) / length)
        last[token] = place
    pairs = Counter(itertools.pairwise(ids.tolist()))
    again = sum(number * (number - 1) for number in pairs.values())
    chance = (
        (length - 1) * sum(times[one] * times[other] for one, other in itertools.pairwise(ids.tolist())) / length**2
    )
    found = recurrence(ids)
    assert found["distinct_tokens"] == len(times) / length
    assert found["tokens_once"] == sum(number == 1 for number in times.values()) / len(times)
    even = EVEN_CLUMPING if len(ways) < 11 else -float(np.mean(np.log(ways)))
    assert found["clumping"] == pytest.approx(even)
    assert found["fixed_pairs"] == pytest.approx(math.log((again + 1) / (chance + 1)))


def test_words_drawn_from_a_vocabulary_come_again_evenly_and_in_no_company() -> None:
    """As in lorem ipsum; of a text whose words come in clumps and in phrases all three columns are higher."""
    draw = np.random.default_rng(1)
    strewn = recurrence(draw.integers(0, 200, 2000).astype(np.int32))
    phrases = draw.integers(0, 3000, (300, 4))
    text = [phrases[topic * 10 + draw.integers(0, 10)] for topic in range(25) for _ in range(20)]
    written = recurrence(np.concatenate(text).astype(np.int32))
    assert abs(strewn["clumping"] - EVEN_CLUMPING) < 0.1
    assert abs(strewn["fixed_pairs"]) < 0.5
    assert strewn["tokens_once"] < 0.01
    assert written["clumping"] > strewn["clumping"] + 1
    assert written["fixed_pairs"] > strewn["fixed_pairs"] + 1
