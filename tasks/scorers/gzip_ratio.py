"""Compressibility: text that compresses far better than its kind repeats itself, text that hardly does is noise.

A window scores by how near its compression ratio lies to the middle of a band. It costs no forward pass, and sees
neither order nor distance beyond the compressor's 32 KiB: a baseline that an attention score has to beat.
"""

from __future__ import annotations

import zlib

from pydantic import Field, model_validator

from ladm.tasks.scorers.evidence import Evidence, Needs
from ladm.tasks.settings import Settings


class GzipConfig(Settings):
    """Compressibility: how near the text's compression ratio (zlib, level 6) is to the middle of a band."""

    low: float = Field(default=0.2, ge=0)
    """Lower end of the band, compressed bytes ÷ bytes. Text below it repeats itself."""
    high: float = Field(default=0.5, gt=0)
    """Upper end of the band. Text above it hardly compresses, as noise does."""

    @model_validator(mode="after")
    def _band(self) -> GzipConfig:
        if self.high <= self.low:
            raise ValueError(f"high ({self.high}) must be above low ({self.low})")
        return self


CONFIG = GzipConfig


def needs(config: GzipConfig, length: int) -> Needs:
    """The window's text."""
    return Needs(text=True)


def gzip_ratio(content: bytes) -> float:
    """Compressed bytes ÷ bytes, by zlib at level 6."""
    return len(zlib.compress(content, 6)) / max(1, len(content))


def score(config: GzipConfig, evidence: Evidence) -> float:
    """1 in the middle of the band, 0 at its edges, falling on evenly beyond them."""
    content = evidence.text.encode("utf-8", "surrogatepass")
    ratio = gzip_ratio(content)
    middle, half = (config.low + config.high) / 2, (config.high - config.low) / 2
    return 1 - abs(ratio - middle) / half
