"""A filter of the fault suite's own, as users write one."""

from __future__ import annotations

from typing import Any


def is_welcome(text: str, meta: dict[str, Any]) -> bool:
    """Drops about one document in five."""
    return len(text.split()) % 5 != 0
