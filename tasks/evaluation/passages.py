"""Passages of real documents, and three ways to put them together: splices, halves, and another order.

Where passages begin and how long they are is drawn at random, so that no cut lies on the grid of spans. What is broken
at smaller scales is in `broken.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.tasks.scorers.distance_profile import CELLS

Ids = npt.NDArray[np.int32]

_SHORTEST_PASSAGE, _LONGEST_PASSAGE = 0.05, 0.22  # of the window: 205 to 901 tokens of 4,096
_EARLIEST_HALF, _LATEST_HALF = 0.4, 0.6
_PURE = 0.8  # of a cell's tokens are of one document, or the cell tells nothing


@dataclass(frozen=True, slots=True)
class SourceWindow:
    """One window of one document, as tokenization cut it."""

    doc_id: str
    domain: str
    ids: Ids
    place: int = 0
    """Which window of the document it is."""

    @property
    def name(self) -> str:
        """Names it: the document, and the window's place but for the first."""
        return f"{self.doc_id}#{self.place}" if self.place else self.doc_id


Part = tuple[SourceWindow, int, int]
"""A passage: of which window, its first token, the token after its last."""


def halves(base: SourceWindow, others: Sequence[SourceWindow], random: np.random.Generator) -> list[Part]:
    """The beginning of a window, and from there on the rest of another document's."""
    length = len(base.ids)
    cut = int(random.integers(int(_EARLIEST_HALF * length), int(_LATEST_HALF * length) + 1))
    other = others[int(random.integers(len(others)))]
    return [(base, 0, cut), (other, cut, length)]


def spliced(others: Sequence[SourceWindow], length: int, random: np.random.Generator) -> list[Part]:
    """Passages from random places of other documents; a document comes again only when all have had their turn."""
    parts: list[Part] = []
    turn: list[int] = []
    for size in _passage_lengths(length, random):
        if not turn:
            last = parts[-1][0].doc_id if parts else None
            turn = [int(number) for number in random.permutation(len(others))]
            if len(turn) > 1 and others[turn[0]].doc_id == last:
                turn.append(turn.pop(0))
        source = others[turn.pop(0)]
        start = int(random.integers(length - size + 1))
        parts.append((source, start, start + size))
    return parts


def shuffled(base: SourceWindow, random: np.random.Generator) -> list[Part]:
    """The window's passages in an order in which none follows the passage that it follows in the text."""
    ends = np.cumsum(_passage_lengths(len(base.ids), random))
    starts = np.concatenate([[0], ends[:-1]])
    while True:
        order = random.permutation(len(ends))
        if not np.any(np.diff(order) == 1):
            return [(base, int(starts[number]), int(ends[number])) for number in order]


def _passage_lengths(length: int, random: np.random.Generator) -> list[int]:
    """Random lengths that add up to the window's; each between a twentieth and two ninths of it, or nearly so."""
    shortest, longest = round(_SHORTEST_PASSAGE * length), round(_LONGEST_PASSAGE * length)
    lengths: list[int] = []
    while (left := length - sum(lengths)) > 0:
        size = int(random.integers(shortest, longest + 1))
        # A remainder too short for a passage of its own goes to the last one.
        lengths.append(left if left - size < shortest else size)
    return lengths


def owners(length: int, cuts: Sequence[int], parts: Sequence[int]) -> npt.NDArray[np.int_]:
    """Of each cell of a window (`distance_profile.py`), whose it is: the number of a document, or -1 where of several.

    Args:
        length: Tokens of the window.
        cuts: First tokens of its passages but the first.
        parts: Of each passage, the number of its document.
    """
    ends = [*cuts, length]
    of_token = np.repeat(np.array(parts), np.diff([0, *ends]))[: length // CELLS * CELLS].reshape(CELLS, -1)
    first_C = np.array([np.bincount(cell).argmax() for cell in of_token])
    pure_C = (of_token == first_C[:, None]).mean(axis=1) >= _PURE
    return np.where(pure_C, first_C, -1)
