"""The contrast set: what it is made of, and that it depends on the seed and the documents alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ladm.tasks.stages.contrast import (
    BROKEN,
    CALIBRATE,
    HALVES,
    KINDS,
    SHUFFLED,
    SPLICED,
    TEST,
    WHOLE,
    ContrastConfig,
    ContrastWindow,
    SourceWindow,
    contrast_set,
    half_of,
    is_list,
)

LENGTH = 1000


def documents(domain: str, count: int) -> list[SourceWindow]:
    """Documents whose every token tells its document and its place: document · LENGTH + place."""
    return [
        SourceWindow(f"{domain}{number}", domain, np.arange(LENGTH, dtype=np.int32) + number * LENGTH)
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def made() -> list[ContrastWindow]:
    return contrast_set([*documents("a", 30), *documents("b", 30)], ContrastConfig(windows=24))


def pieces(window: ContrastWindow) -> list[np.ndarray]:
    return np.split(window.ids, window.cuts)


def test_four_windows_a_document_balanced_over_domains_and_halves(made: list[ContrastWindow]) -> None:
    assert len(made) == 24 * 4
    assert [window.kind for window in made[:4]] == [WHOLE, SPLICED, SHUFFLED, HALVES] == list(KINDS)
    for first in range(0, len(made), 4):
        assert len({window.base for window in made[first : first + 4]}) == 1
    count = {
        (domain, half): sum(window.domain == domain and window.half == half for window in made)
        for domain in "ab"
        for half in (CALIBRATE, TEST)
    }
    assert set(count.values()) == {24}
    # any beginning is balanced, too
    assert {(window.domain, window.half) for window in made[:16]} == set(count)


def test_windows_are_whole_lengths_of_documents_of_their_half(made: list[ContrastWindow]) -> None:
    config = ContrastConfig()
    for window in made:
        assert window.ids.shape == (LENGTH,)
        assert {half_of(config, doc_id) for doc_id in window.documents} == {window.half}
        assert {f"{window.domain}{number}" for number in np.unique(window.ids // LENGTH)} == set(window.documents)
        for piece in pieces(window):
            assert np.all(np.diff(piece) == 1), "a piece is consecutive text of one document"


def test_what_is_broken_in_each_kind(made: list[ContrastWindow]) -> None:
    by_base: dict[str, dict[str, ContrastWindow]] = {}
    for window in made:
        by_base.setdefault(window.base, {})[window.kind] = window
    for base, four in by_base.items():
        whole = four[WHOLE]
        assert whole.documents == (base,)
        assert whole.cuts == ()
        assert base not in four[SPLICED].documents
        sizes = [len(piece) for piece in pieces(four[SPLICED])]
        assert min(sizes) >= 50
        assert len(four[SPLICED].documents) == len(sizes), "there are documents enough for each piece to have its own"
        shuffled = four[SHUFFLED]
        assert sorted(shuffled.ids) == sorted(whole.ids)
        ends = [(piece[0], piece[-1]) for piece in pieces(shuffled)]
        assert all(after[0] != before[1] + 1 for before, after in itertools.pairwise(ends))
        halves = four[HALVES]
        (cut,) = halves.cuts
        assert np.array_equal(halves.ids[:cut], whole.ids[:cut])
        assert 400 <= cut <= 600
        assert np.array_equal(halves.ids[cut:] % LENGTH, np.arange(cut, LENGTH)), "the rest keeps its place"
        assert len(set(halves.documents)) == 2
    cuts = [cut for window in made if window.kind in BROKEN for cut in window.cuts]
    assert len({cut % 8 for cut in cuts}) == 8, "cuts lie on no grid"


def test_it_depends_on_seed_and_documents_alone(made: list[ContrastWindow]) -> None:
    backwards = contrast_set([*documents("b", 30), *documents("a", 30)][::-1], ContrastConfig(windows=24))
    key = lambda windows: [(window.window_id, window.ids.tolist()) for window in windows]  # noqa: E731
    assert key(backwards) == key(made)
    assert key(contrast_set(documents("a", 30), ContrastConfig(windows=24, seed=1))) != key(
        contrast_set(documents("a", 30), ContrastConfig(windows=24))
    )
    # a larger set holds the smaller one
    larger = contrast_set([*documents("a", 30), *documents("b", 30)], ContrastConfig(windows=40))
    assert {window.window_id for window in made} < {window.window_id for window in larger}
    smaller = {window.window_id: window.ids.tolist() for window in made}
    assert all(window.ids.tolist() == smaller.get(window.window_id, window.ids.tolist()) for window in larger)


def test_small_domains_and_no_halves() -> None:
    assert contrast_set(documents("a", 2), ContrastConfig(halves=False)) == []
    few = contrast_set(documents("a", 3), ContrastConfig(halves=False))
    assert len(few) == 3 * 4
    assert {window.half for window in few} == {TEST}
    spliced = few[1]
    assert set(spliced.documents) == {"a0", "a1", "a2"} - {spliced.base}


@pytest.mark.parametrize(("domain", "expected"), [("Dictionaries", True), ("changelogs", True), ("Books", False)])
def test_lists_are_told_by_name(domain: str, expected: bool) -> None:
    assert is_list(ContrastConfig(), domain) is expected
