"""Best-fit packing: nothing lost, nothing cut without need, and no two rows that would fit into one."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from ladm.tasks.exporters.packing import Piece, pack


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(2, 25))
def test_every_token_once_and_rows_as_full_as_best_fit_makes_them(lengths: list[int], length: int) -> None:
    rows = pack(lengths, length)
    pieces = sorted(piece for row in rows for piece in row)
    for document, tokens in enumerate(lengths):
        own = [piece for piece in pieces if piece.document == document]
        assert own[0].start == 0
        assert all(one.start + one.tokens == other.start for one, other in pairwise(own))
        assert own[-1].start + own[-1].tokens == tokens
        assert len(own) == -(-tokens // length), "cut only where it is longer than a row"
    fill = [sum(piece.tokens for piece in row) for row in rows]
    assert all(0 < tokens <= length for tokens in fill)
    assert all(one + other > length for one, other in combinations(fill, 2))
    assert rows == sorted(rows)
    assert all(row == sorted(row) for row in rows)


def test_a_piece_goes_where_the_least_room_is() -> None:
    # 7 and 5 open a row each; the 3 fits both and must take the one with 3 left, so that the 4 still finds its 5
    assert pack([7, 5, 3, 4], 10) == [
        [Piece(0, 0, 7), Piece(2, 0, 3)],
        [Piece(1, 0, 5), Piece(3, 0, 4)],
    ]


def test_a_long_document_fills_rows_and_its_rest_is_packed() -> None:
    assert pack([4, 25], 10) == [
        [Piece(0, 0, 4), Piece(1, 20, 5)],
        [Piece(1, 0, 10)],
        [Piece(1, 10, 10)],
    ]


def test_many_short_documents_leave_almost_no_room() -> None:
    lengths = [37 + 61 * number % 400 for number in range(5000)]
    rows = pack(lengths, 2048)
    assert sum(lengths) / (len(rows) * 2048) > 0.995
