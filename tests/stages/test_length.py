"""The length filter: exact at its border, and it never drops a document that could fill a window."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ladm.tasks.stages.length import TOO_FEW_BYTES, TOO_FEW_CHARS, long_enough


def test_the_border_is_exact() -> None:
    keep, dropped = long_enough(np.array([9, 10, 11]), np.array([9, 10, 11]), 10, None)
    assert keep.tolist() == [False, True, True]
    assert dropped == {TOO_FEW_BYTES: 1}


def test_the_estimate_is_by_characters_and_each_document_has_one_reason() -> None:
    bytes_N, chars_N = np.array([5, 30, 30, 60]), np.array([5, 29, 30, 20])
    keep, dropped = long_enough(bytes_N, chars_N, 10, 3.0)
    assert keep.tolist() == [False, False, True, False]
    assert dropped == {TOO_FEW_BYTES: 1, TOO_FEW_CHARS: 2}


@given(st.lists(st.text(), min_size=1), st.integers(2, 40))
def test_no_text_that_byte_tokens_could_fill_is_dropped(texts: list[str], window_length: int) -> None:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    sizes = np.array([len(one) for one in encoded])
    keep, dropped = long_enough(sizes, np.array([len(text) for text in texts]), window_length, None)
    assert keep.tolist() == [len(one) >= window_length for one in encoded]
    assert keep.sum() + sum(dropped.values()) == len(texts)
