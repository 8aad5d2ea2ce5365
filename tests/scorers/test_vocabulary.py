"""Vocabulary: what is told of windows that fall apart, and of such as do not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ladm.tasks.scorers.vocabulary import FEATURES, vocabulary_features

LENGTH = 1024
COMMON = 400
"""Tokens that every text uses."""


def text(number: int, length: int = LENGTH, terms: int = 80) -> npt.NDArray[np.int64]:
    """Token ids: common ones, and rare ones that are this text's own."""
    chance = np.random.default_rng(number)
    own = chance.choice(np.arange(10_000, 40_000), terms, replace=False)
    return np.where(chance.random(length) < 0.7, chance.integers(0, COMMON, length), chance.choice(own, length))


def in_turns(size: int) -> npt.NDArray[np.int64]:
    one, other = text(1), text(2)
    return np.where(np.arange(LENGTH) // size % 2 == 0, one, other)


def features(ids_L: npt.NDArray[np.integer]) -> dict[str, float]:
    return dict(zip(FEATURES, vocabulary_features(ids_L).tolist(), strict=True))


def test_two_halves_have_little_in_common() -> None:
    whole, halves = features(text(1)), features(np.concatenate([text(1)[:400], text(2)[400:]]))
    for name in FEATURES[:-1]:
        assert halves[name] < 0.75 * whole[name], name


@pytest.mark.parametrize("size", [24, 100, 250])
def test_texts_that_take_turns_are_parted(size: int) -> None:
    whole, parted = features(text(1)), features(in_turns(size))
    assert parted["vocabulary-parting-fine"] < 0.75 * whole["vocabulary-parting-fine"]


@pytest.mark.parametrize(("length", "size"), [(1024, 100), (1024, 200), (4096, 60), (4096, 300), (8192, 300)])
def test_texts_that_take_turns_echo(length: int, size: int) -> None:
    """However long the window is, as turns are counted in tokens."""
    one, other = text(1, length), text(2, length)
    whole, turns = features(one), features(np.where(np.arange(length) // size % 2 == 0, one, other))
    assert turns["vocabulary-echo"] < whole["vocabulary-echo"] - 0.5


def test_the_share_at_a_cut_by_hand() -> None:
    """Of the rare tokens before the middle, half come again after it."""
    ids_L = np.concatenate([np.repeat([20_000, 20_001, 20_002, 20_003], 16), np.repeat([20_002, 20_003], 32)])
    found = features(ids_L)
    weight = np.log1p(np.arange(20_000, 20_004) / 1000) ** 2 + 1e-3
    # After the middle there are two tokens, both known: all of the smaller side. Just before 20,003 first comes, the
    # side before has three tokens and the other two, of which one is shared.
    assert found["vocabulary-weakest-cut"] == pytest.approx(weight[2] / weight[2:].sum(), rel=1e-6)


def test_common_tokens_count_little() -> None:
    rare = features(np.concatenate([text(1)[:512], text(2)[512:]]))
    shared = np.concatenate([text(1)[:512], text(2)[512:]])
    shared[::3] = np.arange(len(shared[::3])) % 50
    assert features(shared)["vocabulary-weakest-cut"] < 1.3 * rare["vocabulary-weakest-cut"]


@pytest.mark.parametrize(
    "ids_L", [np.zeros(64, int), np.arange(1024), np.array([1, 2] * 500), np.arange(8), np.array([5]), np.repeat(9, 3)]
)
def test_every_window_has_finite_features(ids_L: npt.NDArray[np.integer]) -> None:
    found = vocabulary_features(ids_L)
    assert found.shape == (len(FEATURES),)
    assert np.isfinite(found).all()
    assert (found[:-1] >= 0).all()


def test_other_numbers_of_rare_tokens_are_the_same_to_it() -> None:
    """What counts is that they are rare and come again, not which they are."""
    ids_L = text(1)
    moved = np.where(ids_L >= COMMON, 50_000 - ids_L, ids_L)
    assert vocabulary_features(ids_L) == pytest.approx(vocabulary_features(moved), rel=0.15, abs=0.15)
