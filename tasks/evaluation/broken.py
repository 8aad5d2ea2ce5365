"""Ways to break windows at every scale, beside the splices and halves of `contrast_set.py`.

A dependency that has only learnt what long splices look like takes junk for text: it has never seen a window whose
neighbours do not belong together. So it is fitted against three scales of breaking:

- `spliced` (`contrast_set.py`): pieces of a twentieth to two ninths of the window;
- `interleaved`: two documents in turns of 50 to 300 tokens, each in its own order;
- `crumbs`: pieces of 4 to 80 tokens of several documents in no order.

A part is (number of the source, first token, token after the last), as in `contrast_set.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Part = tuple[int, int, int]

INTERLEAVED, CRUMBS = "interleaved", "crumbs"

_TURN = (50, 300)  # tokens
_UNEVEN = (0.7, 1.3)  # a turn's length against the window's usual one
_CRUMB = (8, 40)  # tokens; one crumb has half to twice the window's usual length
_CRUMB_SOURCES = 8


def interleaved(length: int, random: np.random.Generator) -> list[Part]:
    """Parts of a window of two sources, 0 and 1, in turns."""
    usual = _even_by_logarithm(_TURN, random)
    parts: list[Part] = []
    done = [0, 0]
    left = length
    while left:
        source = len(parts) % 2
        size = min(left, max(1, int(usual * random.uniform(*_UNEVEN))))
        parts.append((source, done[source], done[source] + size))
        done[source] += size
        left -= size
    return parts


def crumbs(sources: int, length: int, random: np.random.Generator) -> list[Part]:
    """Parts of a window of crumbs, from random places of at most eight of so many sources of `length` tokens."""
    usual = _even_by_logarithm(_CRUMB, random)
    chosen = random.permutation(sources)[:_CRUMB_SOURCES]
    parts: list[Part] = []
    left = length
    while left:
        size = min(left, int(random.integers(max(2, usual // 2), 2 * usual)))
        start = int(random.integers(length - size + 1))
        parts.append((int(random.choice(chosen)), start, start + size))
        left -= size
    return parts


def joined(parts: Sequence[Part], sources: Sequence[Ids]) -> Ids:
    """The window that the parts make of the sources' token ids."""
    return np.concatenate([sources[source][start:end] for source, start, end in parts])


def _even_by_logarithm(bounds: tuple[int, int], random: np.random.Generator) -> int:
    return int(math.exp(random.uniform(math.log(bounds[0]), math.log(bounds[1]))))
