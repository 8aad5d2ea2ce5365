"""Short passes over snippets of a window, for scorers that condition on less than all of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ladm.tasks.scorers.attention import one_pass
from ladm.tasks.scorers.calculator import Calculator
from ladm.tasks.scorers.evidence import Snippet


def read_snippets(
    calculator: Calculator, ids_L: npt.NDArray[np.integer], snippets: Sequence[Snippet], batch_tokens: int = 4096
) -> dict[Snippet, npt.NDArray[np.float32]]:
    """Log p of every snippet's targets, by short forward passes over snippets of one shape at a time."""
    alike: dict[tuple[int, int], list[Snippet]] = {}
    for snippet in snippets:
        alike.setdefault((snippet.length, snippet.targets), []).append(snippet)
    found: dict[Snippet, npt.NDArray[np.float32]] = {}
    for (length, targets), group in alike.items():
        places = range(length - targets, length)
        at_once = max(1, batch_tokens // length)
        for first in range(0, len(group), at_once):
            batch = group[first : first + at_once]
            ids_BL = np.stack([np.concatenate([ids_L[start:end] for start, end in one.parts]) for one in batch])
            log_p_BT = one_pass(calculator, {}, torch.as_tensor(ids_BL).long(), places).log_p
            assert log_p_BT is not None
            found.update(zip(batch, log_p_BT, strict=True))
    return found
