"""A filter: drops texts that are mostly numbers. `filters: [few_digits]`, or with `arguments: {most: 0.2}`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def few_digits(most: float = 0.3) -> Callable[[str, dict[str, Any]], tuple[bool, str]]:
    """Make the filter; the arguments are those of the configuration's entry.

    Args:
        most: The greatest share of a text's characters that may be digits.
    """

    def keep(text: str, meta: dict[str, Any]) -> tuple[bool, str]:
        share = sum(map(str.isdigit, text)) / max(1, len(text))
        return share <= most, "too many digits"

    return keep
