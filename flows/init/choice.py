"""The settings that follow from what was found: the window, its calibration, the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import orjson

from ladm.flows.init.lengths import LENGTHS, Measured

MODEL = "smollm2-135m-"
"""How the names of the embedded model's calibrations begin."""
ENOUGH = 30
"""Documents that should fill a window, if a shorter one is filled by more."""


@dataclass(frozen=True)
class Choice:
    """What the configuration says of windows and budget."""

    length: int
    span: int
    """A calibration is shipped for the embedded model, this window and this span."""
    budget: int | None
    """Tokens; None: nothing fills the window."""


@cache
def calibrations() -> dict[int, int]:
    """Window length → span, of the calibrations that are shipped for the embedded model."""
    folder = files("ladm.tasks.scorers") / "calibrations"
    loaded = [orjson.loads(one.read_bytes()) for one in folder.iterdir() if one.name.startswith(MODEL)]
    return {int(one["window_length"]): int(one["span"]) for one in sorted(loaded, key=lambda one: one["window_length"])}


def choice_of(found: Measured) -> Choice:
    """The longest window that a calibration is shipped for and that enough documents fill twice over.

    Twice, since tokens are estimated: a window that hardly any document fills would score next to nothing. The budget
    is half of the tokens of the documents that fill it.
    """
    filled: Mapping[int, int] = {length: found.filling(length) for length in LENGTHS}
    lengths = sorted(calibrations())
    least = max(1, min(ENOUGH, filled[lengths[0]] // 2))
    enough = [length for length in lengths if filled[length if length == lengths[0] else 2 * length] >= least]
    length = enough[-1] if enough and filled[enough[-1]] else lengths[0]
    tokens = found.tokens[length]
    return Choice(length, calibrations()[length], _rounded(tokens // 2) if tokens else None)


def _rounded(tokens: int) -> int:
    """Two digits that count."""
    unit = int(10 ** max(0, len(str(tokens)) - 2))
    return max(1, tokens // unit * unit)
