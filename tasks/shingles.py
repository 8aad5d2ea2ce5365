"""Texts as words, and runs of words as numbers of 64 bits: what duplicates and benchmark passages are told by.

A word is a run of letters, digits and underscores; of the scripts that put no space between words (Chinese, Japanese,
Thai, Lao) each character is one. Case, punctuation, white space and Unicode's compatibility forms (full-width letters,
ligatures) make no difference. A text is therefore cut alike however it is laid out.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rensa

Hashes = npt.NDArray[np.uint64]

_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_KNOWN_WORDS = 1 << 20
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing


def minhash_version() -> str:
    """What computes the signatures, for the keys of what holds them: another algorithm gives others."""
    return f"rensa R-MinHash {rensa.RMinHash.ALGORITHM_VERSION}"


def normal_form(text: str) -> str:
    """A text without what makes no difference to a reader: compatibility forms, case, and the kind of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class WordHasher:
    """Turns words into numbers, the same on every machine; remembers those it has seen lately."""

    def __init__(self) -> None:
        self._known = _Known()

    def words(self, normal: str) -> Hashes:
        """The words of a text in its normal form, in order, shape [words]."""
        if len(self._known) > _KNOWN_WORDS:
            self._known.clear()
        found = _WORD.findall(normal)
        return np.fromiter(map(self._known.__getitem__, found), dtype=np.uint64, count=len(found))


class _Known(dict[str, int]):
    def __missing__(self, word: str) -> int:
        value = int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
        self[word] = value
        return value


def ngrams(words: Hashes, n: int) -> Hashes:
    """Every run of n words as one number, in order, shape [words - n + 1]; none if there are fewer words."""
    count = max(0, len(words) - n + 1)
    runs = words[:count].copy()
    for place in range(1, n):
        runs = runs * _FACTOR + words[place : place + count]
    return _mixed(runs)


def shingles(words: Hashes, n: int) -> Hashes:
    """The runs of n words as a set that knows how often each occurs: its k-th occurrence is a member of its own.

    So the Jaccard similarity of two such sets is that of the multisets. With plain sets, a text that repeats itself
    (a dictionary, code) would look quite different after a change of few words, since each new run counts in full
    while the repeated old ones count once.
    """
    runs = np.sort(ngrams(words, n))
    places = np.arange(len(runs))
    begins = np.ones(len(runs), dtype=bool)
    begins[1:] = runs[1:] != runs[:-1]
    occurrence = places - np.maximum.accumulate(np.where(begins, places, 0))
    return _mixed(runs + occurrence.astype(np.uint64) * _FACTOR)


def minhashes(sets: Sequence[Hashes], permutations: int, seed: int) -> list[list[int] | None]:
    """The MinHash signature of each set, `permutations` numbers of 32 bits; None for an empty set.

    The share of places at which two signatures agree estimates the Jaccard similarity of their sets, with a standard
    error of sqrt(J (1 - J) / permutations).
    """
    full = [one for one in sets if len(one)]
    if not full:
        return [None] * len(sets)
    ends = np.cumsum([0, *map(len, full)]).astype(np.uint64)
    matrix: Any = rensa.RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(full), ends, permutations, seed)
    rows = iter(matrix.to_rows())
    return [next(rows) if len(one) else None for one in sets]


def _mixed(values: Hashes) -> Hashes:
    """The numbers with all their bits mixed, one to one (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
