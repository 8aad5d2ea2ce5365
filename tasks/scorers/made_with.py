"""What a calibration was made with, as it is shown in forms; and layers as they are written."""

from __future__ import annotations

from typing import Any

MADE_WITH = ("formula", "span", "d_afs", "d_cds", "ablation")
"""What a calibration was made with, and gives where the configuration leaves it out."""


def without_made_with(schema: dict[str, Any]) -> None:
    """Leave out of a schema the defaults of `MADE_WITH`.

    Prefect's form sends back every default that it shows, and a calibration would be told to be another one.
    """
    for name in MADE_WITH:
        schema.get("properties", {}).get(name, {}).pop("default", None)
        if isinstance(schema.get("default"), dict):
            schema["default"].pop(name, None)


def written(layers: list[int]) -> str:
    """Layers as `scorer.layers` takes them: `0-4,6`."""
    ends = [layer for layer in layers if layer + 1 not in layers]
    starts = [layer for layer in layers if layer - 1 not in layers]
    return ",".join(str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True))
