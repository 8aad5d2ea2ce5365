"""A picture of one window: how much each of its spans attends to every earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.tasks.errors import ConfigError

COLOURS = {"ink": "#1b2026", "line": "#cbd2d9"}
"""What the picture's two roles are drawn in where no page gives them a colour."""


@dataclass(frozen=True, repr=False)
class Heatmap:
    """The attention of one window, span by span. A notebook shows it as a picture."""

    pfs: npt.NDArray[np.float32]
    """NN: row = later span, column = earlier span; NaN where it is not measured."""
    span: int
    """Tokens in a span."""
    layers: tuple[int, ...]
    """The layers whose mean it is, from 0."""

    def svg(self, title: str = "") -> str:
        """The picture as SVG."""
        from ladm.flows.report import charts  # noqa: PLC0415  (matplotlib)
        from ladm.flows.report.heatmaps import Heatmap as Measured  # noqa: PLC0415

        drawn = str(charts.heatmap_chart(Measured("", self.span, list(self.layers), self.pfs), title))
        for role, colour in COLOURS.items():
            drawn = drawn.replace(f"var(--{role})", colour)
        return drawn if "xmlns=" in drawn[:200] else drawn.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)

    def save(self, path: str, title: str = "") -> str:
        """Write the picture as an SVG file, and return its path."""
        try:
            Path(path).write_text(self.svg(title), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"path: {path!r} cannot be written ({error.strerror}); give another file") from None
        return path

    def __repr__(self) -> str:
        spans = len(self.pfs)
        return f"Heatmap of {spans} × {spans} spans of {self.span} tokens; .svg(), .save(path) or .pfs"

    def _repr_html_(self) -> str:
        return f'<div style="max-width: 26rem; background: white">{self.svg()}</div>'
