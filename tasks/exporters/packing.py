"""Packing: documents put into rows of one length, cut only where they are longer than a row (best fit, decreasing).

As in Ding et al., "Fewer Truncations Improve Language Modeling" (arXiv 2404.10830): a document longer than a row is
cut into full rows and a rest; then every piece, longest first, goes into the row with the least room that holds it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """Consecutive tokens of one document."""

    document: int
    """Which document, counted from 0."""
    start: int
    """The piece's first token, counted from the document's first."""
    tokens: int


def pack(lengths: Sequence[int], length: int) -> list[list[Piece]]:
    """Pack documents into rows.

    Args:
        lengths: Tokens of each document, at least one.
        length: Tokens that a row holds at most.

    Returns:
        The rows in the order of their first documents, and in each the pieces in the order of the documents. Every
        token of every document is in exactly one row. No two rows would fit into one.
    """
    pieces = [
        Piece(document, start, min(length, tokens - start))
        for document, tokens in enumerate(lengths)
        for start in range(0, tokens, length)
    ]
    rows: list[list[Piece]] = []
    rows_by_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the keys of rows_by_room, sorted
    for piece in sorted(pieces, key=lambda piece: -piece.tokens):
        best = bisect_left(rooms, piece.tokens)
        if best < len(rooms):
            room = rooms[best]
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                del rows_by_room[room], rooms[best]
        else:
            room, row = length, len(rows)
            rows.append([])
        rows[row].append(piece)
        if left := room - piece.tokens:
            if left not in rows_by_room:
                insort(rooms, left)
            rows_by_room.setdefault(left, []).append(row)
    return sorted(sorted(row) for row in rows)
