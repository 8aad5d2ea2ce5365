"""A scorer: the share of a window's lines that are not there twice. `scorer: {beside: [line_variety]}`."""

from __future__ import annotations

from pydantic import Field

from ladm.tasks.scorers.evidence import Evidence, Needs
from ladm.tasks.settings import Settings

VERSION = 1
"""Raise it when the scorer gives other numbers: windows are then measured again."""


class LineVarietyConfig(Settings):
    """The scorer's settings; each has a default."""

    shortest: int = Field(default=1, ge=0)
    """Lines of fewer characters do not count."""


CONFIG = LineVarietyConfig


def needs(config: LineVarietyConfig, length: int) -> Needs:
    """The window's text; a scorer may ask for attention and probabilities as well."""
    return Needs(text=True)


def score(config: LineVarietyConfig, evidence: Evidence) -> float:
    """1 if every line is another one, near 0 if all are the same."""
    lines = [line.strip() for line in evidence.text.splitlines() if len(line.strip()) >= config.shortest]
    return len(set(lines)) / max(1, len(lines))
