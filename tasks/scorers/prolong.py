"""ProLong (arXiv 2405.17915): how much one segment helps to predict a later one, how far apart they are, how specially.

The window is cut into N segments. For a later segment i and an earlier one j: *strength* is the relative fall in
perplexity of i when j stands before it; *distance* is (i − j)/(N − 1); *specificity* of i is one minus the normalised
entropy of the falls over all j, which is low when every j helps alike, as in repetitive text. The score adds
(strength + distance) · specificity over the pairs whose strength passes a threshold. The paper samples 500 to 5,000
pairs of a 32K window; here a few segments stand for all, evenly spread, and the sum is a mean over the pairs taken.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ladm.tasks.scorers.evidence import Evidence, Needs, Snippet
from ladm.tasks.settings import Settings


class ProLongConfig(Settings):
    """ProLong: how much earlier segments help to predict later ones."""

    segment: int = Field(default=128, ge=2)
    """Tokens in a segment."""
    later: int = Field(default=3, ge=1)
    """How many segments are predicted, spread over the last three quarters of the window."""
    earlier: int = Field(default=2, ge=2)
    """How many earlier segments are tried for each of them; at least two."""
    threshold: float = Field(default=0.1, ge=0)
    """Ignore a pair whose perplexity falls by a smaller share."""


CONFIG = ProLongConfig


def needs(config: ProLongConfig, length: int) -> Needs:
    """Each later segment alone, and after each of its earlier ones."""
    snippets = []
    for later, earlier in _pairs(config, length).items():
        snippets += [_alone(config, length, later), *(_after(config, length, one, later) for one in earlier)]
    return Needs(snippets=tuple(dict.fromkeys(snippets)))


def score(config: ProLongConfig, evidence: Evidence) -> float:
    """The mean over pairs of (strength + distance) · specificity, each term of it at least 0."""
    length = len(evidence.ids)
    count = length // _segment(config, length)
    terms = []
    for later, earlier in _pairs(config, length).items():
        alone = _perplexity(evidence, _alone(config, length, later))
        falls = np.array([alone - _perplexity(evidence, _after(config, length, one, later)) for one in earlier])
        specificity = _specificity(falls)
        for one, fall in zip(earlier, falls, strict=True):
            strength, distance = fall / alone, (later - one) / (count - 1)
            terms.append((strength + distance) * specificity if strength > config.threshold else 0.0)
    return float(np.mean(terms))


def _segment(config: ProLongConfig, length: int) -> int:
    """Tokens in a segment: at most a sixteenth of the window, so that there are some to choose from."""
    return max(2, min(config.segment, length // 16))


def _pairs(config: ProLongConfig, length: int) -> dict[int, list[int]]:
    """Later segment → earlier ones, none of them next to it."""
    count = length // _segment(config, length)
    later = np.linspace(count // 4, count - 1, config.later).astype(int)
    return {
        int(one): [int(before) for before in dict.fromkeys(np.linspace(0, one - 2, config.earlier).astype(int))]
        for one in dict.fromkeys(later)
    }


def _place(config: ProLongConfig, length: int, number: int) -> tuple[int, int]:
    segment = _segment(config, length)
    return number * segment, (number + 1) * segment


def _alone(config: ProLongConfig, length: int, later: int) -> Snippet:
    # The first token has nothing before it, so it is left out; after an earlier segment too, to compare like with like.
    return Snippet((_place(config, length, later),), _segment(config, length) - 1)


def _after(config: ProLongConfig, length: int, earlier: int, later: int) -> Snippet:
    parts = (_place(config, length, earlier), _place(config, length, later))
    return Snippet(parts, _segment(config, length) - 1)


def _perplexity(evidence: Evidence, snippet: Snippet) -> float:
    return float(np.exp(-evidence.snippet_log_p[snippet].astype(np.float64).mean()))


def _specificity(falls: np.ndarray) -> float:
    """1 − entropy of the softmax of the falls ÷ its greatest value; 1 for a single one."""
    if len(falls) == 1:
        return 1.0
    share = np.exp(falls - falls.max())
    share /= share.sum()
    entropy = -sum(part * np.log(part) for part in share if part > 0)
    return float(np.clip(1 - entropy / np.log(len(falls)), 0, 1))
