"""LongFilter (arXiv 2510.25804): how much better tokens are predicted from the long context than from a short one.

For a token x the gain is p(x | long) · log(p(x | long) / p(x | short)), the paper's stand-in for the divergence of the
two predictions; a window's score is the mean over its target tokens. The paper takes every token; here some blocks of
tokens stand for all, so that the short contexts cost a third of a forward pass, not a whole one. The long predictions
come from the window's own pass.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ladm.tasks.scorers.evidence import Evidence, Needs, Snippet
from ladm.tasks.settings import Settings


class LongFilterConfig(Settings):
    """LongFilter: how much better tokens are predicted from the whole window than from a short context."""

    short: int | None = Field(default=None, ge=1)
    """Tokens of the short context before a block. Default: a sixteenth of the window."""
    block: int = Field(default=128, ge=1)
    """Tokens in a block."""
    blocks: int = Field(default=3, ge=1)
    """How many blocks of a window are predicted, spread over its last three quarters."""


CONFIG = LongFilterConfig


def needs(config: LongFilterConfig, length: int) -> Needs:
    """The blocks' tokens, given everything before them, and given the short context alone."""
    snippets = _snippets(config, length)
    targets = [place for snippet in snippets for place in range(_end(snippet) - snippet.targets, _end(snippet))]
    return Needs(targets=tuple(sorted(set(targets))), snippets=tuple(snippets))


def score(config: LongFilterConfig, evidence: Evidence) -> float:
    """The mean gain of the target tokens, in nats."""
    gains = []
    for snippet in _snippets(config, len(evidence.ids)):
        end = _end(snippet)
        long_T = np.array([evidence.log_p[place] for place in range(end - snippet.targets, end)], dtype=np.float64)
        gains.append(np.exp(long_T) * (long_T - evidence.snippet_log_p[snippet]))
    return float(np.concatenate(gains).mean())


def _snippets(config: LongFilterConfig, length: int) -> list[Snippet]:
    block = min(config.block, length // 4)
    short = min(config.short or max(1, length // 16), length // 4)
    ends = np.linspace(length // 4 + short + block, length, config.blocks).astype(int)
    return [Snippet(((int(end) - block - short, int(end)),), block) for end in dict.fromkeys(ends)]


def _end(snippet: Snippet) -> int:
    return snippet.parts[-1][1]
