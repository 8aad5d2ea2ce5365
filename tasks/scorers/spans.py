"""The spans of a window between which attention is measured. A *span* is so many consecutive tokens."""

from __future__ import annotations

from dataclasses import dataclass

SPANS = 32
"""Spans in a window, where a calibration says nothing else: as in those that are shipped."""


def span_of(length: int) -> int:
    """Tokens in each of `SPANS` spans of a window of `length` tokens."""
    return max(1, length // SPANS)


@dataclass(frozen=True)
class QuerySpan:
    """One sampled query span and the key spans it is measured against, as first tokens (the nearest key span first)."""

    start: int
    key_starts: tuple[int, ...]


@dataclass(frozen=True)
class SpanPlan:
    """What to measure in a window of `length` tokens: the query spans, in the order of the text.

    `own_keys` says over which keys a query row's softmax runs: all up to the row itself (True: the causal softmax), or
    only those before the row's span (False: the span's own keys are left out).
    """

    length: int
    span: int
    own_keys: bool
    queries: tuple[QuerySpan, ...]
