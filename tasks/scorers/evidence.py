"""What a scorer asks of a window, and what it gets: the interface of the scorers that stand beside `ladm`.

A scorer is a module with `CONFIG`, the class of its settings, `needs(config, length)` and `score(config, evidence)`,
both plain arithmetic; one that gives several values lists them in `COLUMNS`, and one that gives other numbers
than before raises its `VERSION`. It is added in `registry.py`.
What several scorers need of the window's own forward pass is asked for once: one pass serves `ladm` and all of them.
Only what is conditioned on *less* than the window (a snippet) needs passes of its own, short ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ladm.tasks.scorers.spans import SpanPlan


@dataclass(frozen=True)
class Snippet:
    """Parts of a window put together to a text of its own, of which the last tokens' probabilities are wanted."""

    parts: tuple[tuple[int, int], ...]
    """First token and the token after the last, of each part."""
    targets: int
    """How many tokens at the end."""

    @property
    def length(self) -> int:
        """Tokens in all."""
        return sum(end - start for start, end in self.parts)


@dataclass(frozen=True)
class Needs:
    """What a scorer asks for."""

    profile: tuple[int, ...] = ()
    """Layers whose profile of attention by distance is wanted, counted from 0."""
    layers: tuple[int, ...] = ()
    """Layers whose attention between LADM's sampled spans is wanted, counted from 0."""
    targets: tuple[int, ...] = ()
    """Places of tokens whose probability, given all of the window before them, is wanted; each at least 1."""
    snippets: tuple[Snippet, ...] = ()
    text: bool = False
    """The window's characters."""

    @property
    def model(self) -> bool:
        """Whether the model is needed at all."""
        return bool(self.layers or self.profile or self.targets or self.snippets)

    @property
    def head(self) -> bool:
        """Whether the model's language-model head is needed."""
        return bool(self.targets or self.snippets)


@dataclass(frozen=True)
class Evidence:
    """What was found of one window."""

    ids: npt.NDArray[np.integer]
    """ids_L, the window's token ids."""
    plan: SpanPlan | None = None
    """The spans that `pfs` speaks of."""
    pfs: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Layer → pfs_P, mean over heads: the attention mass of each pair of spans of `plan`."""
    pfs_heads: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Layer → pfs_HP, head by head."""
    profile: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Layer → f_HF, the profile of attention by distance (`distance_profile.py`)."""
    log_p: dict[int, float] = field(default_factory=dict)
    """Place of a target → natural logarithm of its probability, given all before it."""
    snippet_log_p: dict[Snippet, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Snippet → log p of its targets, in order."""
    text: str = ""
