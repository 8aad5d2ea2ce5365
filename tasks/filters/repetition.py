"""Text that repeats itself: the thresholds of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1).

A line or paragraph is a duplicate if the same was there before, and so is a run of words (an n-gram). Words are what
white space separates; lines and paragraphs are compared without white space at their ends, and empty ones do not count.
Characters are shares of all characters of the text. What several duplicates of one length cover is counted once; of
the n-gram that is most frequent every occurrence counts, if there are two or more.

The cost grows with the text: a novel of 0.9 MB goes through at 21 MB/s, a volume of C code of 0.8 MB at 24 MB/s (one
core of a busy machine, the median of nine times). The same novel eight times over, in which every n-gram is repeated,
takes three times as long a megabyte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ladm.tasks.settings import Settings

Numbers = npt.NDArray[np.int64]
VERSION = "1"
"""Raised whenever the same text would give other shares; part of the key."""
TOP = range(2, 5)
LONGEST = 10
_PARAGRAPHS = re.compile(r"\n\s*\n")


def _threshold(default: float) -> Any:
    return Field(default=default, ge=0, le=1)


class RepetitionConfig(Settings):
    """The largest share of each kind of repetition that a text may have; `null` turns a threshold off."""

    duplicate_lines: float | None = _threshold(0.30)
    """Largest share of duplicate lines."""
    duplicate_paragraphs: float | None = _threshold(0.30)
    """Largest share of duplicate paragraphs."""
    duplicate_line_chars: float | None = _threshold(0.20)
    """Largest share of characters in duplicate lines."""
    duplicate_paragraph_chars: float | None = _threshold(0.20)
    """Largest share of characters in duplicate paragraphs."""
    top_2_gram: float | None = _threshold(0.20)
    """Largest share of characters in the most frequent run of two words."""
    top_3_gram: float | None = _threshold(0.18)
    """The same for runs of three words."""
    top_4_gram: float | None = _threshold(0.16)
    """The same for runs of four words."""
    duplicate_5_grams: float | None = _threshold(0.15)
    """Largest share of characters in runs of five words that occurred before."""
    duplicate_6_grams: float | None = _threshold(0.14)
    """The same for runs of six words."""
    duplicate_7_grams: float | None = _threshold(0.13)
    """The same for runs of seven words."""
    duplicate_8_grams: float | None = _threshold(0.12)
    """The same for runs of eight words."""
    duplicate_9_grams: float | None = _threshold(0.11)
    """The same for runs of nine words."""
    duplicate_10_grams: float | None = _threshold(0.10)
    """The same for runs of ten words."""


def too_repetitive(text: str, config: RepetitionConfig) -> str | None:
    """The first share that is too high, in words; None if none is."""
    for name, share in shares(text):
        threshold = getattr(config, name)
        if threshold is not None and share > threshold:
            return name.replace("_", " ")
    return None


def shares(text: str) -> Iterator[tuple[str, float]]:
    """Each setting's name and the share that it is about, the cheap ones first."""
    lines = [line for each in text.split("\n") if (line := each.strip())]
    yield from _of_parts("line", lines, len(text))
    yield from _of_parts("paragraph", [part for each in _PARAGRAPHS.split(text) if (part := each.strip())], len(text))
    yield from _of_words(text)


def _of_parts(kind: str, parts: Sequence[str], characters: int) -> Iterator[tuple[str, float]]:
    distinct = set(parts)
    again = sum(map(len, parts)) - sum(map(len, distinct))
    yield f"duplicate_{kind}s", (len(parts) - len(distinct)) / max(1, len(parts))
    yield f"duplicate_{kind}_chars", again / max(1, characters)


def _of_words(text: str) -> Iterator[tuple[str, float]]:
    """The shares of n-grams.

    An n-gram that is there twice begins with an (n-1)-gram that is; so only the places of these are looked at, and each
    n-gram is the number of that and the number of its last word. Numbers are given, not hashed: no two are confused.
    """
    words = pc.utf8_split_whitespace(pa.array([text], pa.large_string())).flatten()
    words = words.filter(pc.greater(pc.utf8_length(words), 0))
    sizes = pc.utf8_length(words).to_numpy().astype(np.int64)
    begins = np.cumsum(sizes + 1) - sizes - 1  # as if one space were between two words
    ends = begins + sizes
    characters, numbers = max(1, len(text)), _numbered(words)
    places, grams = np.arange(len(words)), np.zeros(len(words), dtype=np.int64)
    for n in range(1, LONGEST + 1):
        whole = places + n <= len(words)
        places, grams = places[whole], grams[whole]
        grams = _numbered(pa.array(grams * len(words) + numbers[places + n - 1]))
        counts = np.bincount(grams)
        repeated = counts[grams] > 1
        places, grams = places[repeated], grams[repeated]
        last = places + n - 1
        if n in TOP:
            yield f"top_{n}_gram", _covered(*_most_frequent(begins[places], ends[last], grams, counts)) / characters
        elif n > max(TOP):
            again = places != _first_places(places, grams, len(counts))
            yield f"duplicate_{n}_grams", _covered(begins[places[again]], ends[last[again]]) / characters


def _numbered(values: pa.Array) -> Numbers:
    """Each value's number, in the order in which they first come, from 0."""
    indices: Numbers = values.dictionary_encode().indices.to_numpy().astype(np.int64)
    return indices


def _most_frequent(begins: Numbers, ends: Numbers, grams: Numbers, counts: Numbers) -> tuple[Numbers, Numbers]:
    """Where the n-gram that is there most often begins and ends; of several the longest, of these the first."""
    if not len(grams):
        return begins, ends
    often = counts[grams]
    longest = np.argmax(np.where(often == often.max(), ends - begins, -1))
    chosen = grams == grams[longest]
    return begins[chosen], ends[chosen]


def _first_places(places: Numbers, grams: Numbers, number: int) -> Numbers:
    """Of each n-gram the place where it is first; places are in order."""
    first = np.zeros(number, dtype=np.int64)
    first[grams[::-1]] = places[::-1]
    return first[grams]


def _covered(begins: Numbers, ends: Numbers) -> int:
    """Characters in some stretches of a text, which are in order and may overlap."""
    before = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    return int((ends - np.maximum(begins, before)).sum())
