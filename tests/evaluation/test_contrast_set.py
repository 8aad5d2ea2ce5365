"""The contrast set: what it is made of, and that it depends on the seed and the documents alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ladm.tasks.evaluation.contrast_set import (
    BROKEN,
    CALIBRATE,
    CRUMBS,
    HALVES,
    INTERLEAVED,
    JUNK,
    SHUFFLED,
    SPLICED,
    TEST,
    WHOLE,
    Coder,
    ContrastConfig,
    ContrastWindow,
    SourceWindow,
    contrast_set,
    half_of,
    is_list,
)

LENGTH = 1000


BROKEN_OF = {
    CALIBRATE: [SPLICED, SHUFFLED, HALVES, INTERLEAVED, CRUMBS],
    TEST: [SPLICED, SHUFFLED, HALVES, INTERLEAVED],
}


def flat(made: list[list[ContrastWindow]]) -> list[ContrastWindow]:
    return [window for of_one in made for window in of_one]


def documents(domain: str, count: int) -> list[SourceWindow]:
    """Documents whose every token tells its document and its place: document · LENGTH + place."""
    return [
        SourceWindow(f"{domain}{number}", domain, np.arange(LENGTH, dtype=np.int32) + number * LENGTH)
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def made() -> list[ContrastWindow]:
    return flat(contrast_set([*documents("a", 30), *documents("b", 30)], ContrastConfig(windows=24)))


def pieces(window: ContrastWindow) -> list[np.ndarray]:
    return np.split(window.ids, window.cuts)


def test_the_windows_of_a_document_balanced_over_domains_and_halves() -> None:
    made = contrast_set([*documents("a", 30), *documents("b", 30)], ContrastConfig(windows=24))
    assert len(made) == 24
    for of_one in made:
        assert len({window.base for window in of_one}) == 1
        assert [window.kind for window in of_one] == [WHOLE, *BROKEN_OF[of_one[0].half]]
    firsts = [(of_one[0].domain, of_one[0].half) for of_one in made]
    assert {place: firsts.count(place) for place in firsts} == {(d, h): 6 for d in "ab" for h in (CALIBRATE, TEST)}
    # any beginning is balanced, too
    assert len(set(firsts[:4])) == 4


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
        if halves := four.get(HALVES):
            (cut,) = halves.cuts
            assert np.array_equal(halves.ids[:cut], whole.ids[:cut])
            assert 400 <= cut <= 600
            assert np.array_equal(halves.ids[cut:] % LENGTH, np.arange(cut, LENGTH)), "the rest keeps its place"
            assert len(set(halves.documents)) == 2
        in_turns = four[INTERLEAVED]
        assert len(in_turns.documents) == 2
        assert in_turns.documents[0] == base
        for part in (piece for first in (0, 1) for piece in [np.concatenate(pieces(in_turns)[first::2])]):
            assert np.array_equal(part % LENGTH, np.arange(len(part))), "each document goes on in its own order"
        if crumbs := four.get(CRUMBS):
            assert base not in crumbs.documents
            assert len(crumbs.documents) <= 8
            assert max(map(len, pieces(crumbs))) <= 80
    cuts = [cut for window in made if window.kind in BROKEN for cut in window.cuts]
    assert len({cut % 8 for cut in cuts}) == 8, "cuts lie on no grid"


def test_it_depends_on_seed_and_documents_alone(made: list[ContrastWindow]) -> None:
    config = ContrastConfig(windows=24)
    backwards = flat(contrast_set([*documents("b", 30), *documents("a", 30)][::-1], config))
    key = lambda windows: [(window.window_id, window.ids.tolist()) for window in windows]  # noqa: E731
    assert key(backwards) == key(made)
    other = contrast_set(documents("a", 30), ContrastConfig(windows=24, seed=1))
    assert key(flat(other)) != key(flat(contrast_set(documents("a", 30), config)))
    # a larger set holds the smaller one
    larger = flat(contrast_set([*documents("a", 30), *documents("b", 30)], ContrastConfig(windows=40)))
    assert {window.window_id for window in made} < {window.window_id for window in larger}
    smaller = {window.window_id: window.ids.tolist() for window in made}
    assert all(window.ids.tolist() == smaller.get(window.window_id, window.ids.tolist()) for window in larger)


def test_small_domains_and_no_halves() -> None:
    assert contrast_set(documents("a", 2), ContrastConfig(half="test")) == []
    few = flat(contrast_set(documents("a", 3), ContrastConfig(half="test")))
    assert len(few) == 3 * 5
    assert {window.half for window in few} == {TEST}
    spliced = few[1]
    assert set(spliced.documents) == {"a0", "a1", "a2"} - {spliced.base}


CODER = Coder(lambda text: list(text.encode()), lambda ids: bytes(one % 26 + 97 for one in ids.tolist()).decode())


@pytest.mark.parametrize(("domains", "windows"), [("ab", 52), ("abcdef", 24), ("abcdefghijklm", 52)])
def test_every_kind_of_junk_is_dealt_equally_often(domains: str, windows: int) -> None:
    config = ContrastConfig(windows=windows)
    every = [window for domain in domains for window in documents(domain, 40)]
    made = contrast_set(every, config, CODER)
    junk = [of_one[-1] for of_one in made if of_one[0].half == TEST]
    assert all(window.kind in JUNK for window in junk)
    assert not [window for of_one in made if of_one[0].half == CALIBRATE for window in of_one if window.kind in JUNK]
    counts = [sum(window.kind == kind for window in junk) for kind in JUNK]
    assert max(counts) - min(counts) <= 1
    for domain in domains:
        kinds = [window.kind for window in junk if window.domain == domain]
        assert len(set(kinds)) == min(len(kinds), len(JUNK)), "a domain has every kind before one comes again"
    for window in junk:
        assert window.ids.shape == (LENGTH,)
        assert window.documents[0] == window.base
        assert {half_of(config, doc_id) for doc_id in window.documents} == {TEST}
    larger = contrast_set(every, ContrastConfig(windows=windows + 20), CODER)
    assert {window.window_id for window in junk} < {window.window_id for window in flat(larger)}


@pytest.mark.parametrize(("domain", "expected"), [("Dictionaries", True), ("changelogs", True), ("Books", False)])
def test_lists_are_told_by_name(domain: str, expected: bool) -> None:
    assert is_list(ContrastConfig(), domain) is expected
