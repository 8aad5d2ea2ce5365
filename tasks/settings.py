"""The base of every stage's configuration: typed, frozen, and closed to unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A stage's configuration. Unknown keys are refused, and values cannot change once validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
