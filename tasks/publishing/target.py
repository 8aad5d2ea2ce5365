"""The `publish:` section: where the exports and their card go when a run is done."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from ladm.tasks.places import expanded
from ladm.tasks.redact import checked_uri
from ladm.tasks.settings import Settings

HUB = re.compile(r"hf://datasets/([A-Za-z0-9][\w.-]*/[\w.-]+)/?", re.ASCII)


class PublishConfig(Settings):
    """Publish every export, with the card, when the run is done. A string stands for `to` alone."""

    to: str = Field(min_length=1)
    """`hf://datasets/ORG/NAME`, `s3://bucket/prefix`, or a folder."""
    private: bool = True
    """Whether a dataset that the Hub does not have yet is made private."""
    revision: str = Field(default="main", min_length=1, pattern=r"^[\w./-]+$")
    """The branch of the Hub's dataset."""

    @model_validator(mode="before")
    @classmethod
    def _from_address(cls, given: Any) -> Any:
        return {"to": given} if isinstance(given, str) else given

    @field_validator("to")
    @classmethod
    def _known_address(cls, to: str) -> str:
        to = checked_uri(expanded(to))
        if to.startswith("hf:") and not HUB.fullmatch(to):
            raise ValueError(f"{to!r} is no dataset of the Hub; give hf://datasets/ORG/NAME")
        if "://" in to and not to.startswith(("hf://", "s3://", "file://")):
            raise ValueError(f"{to!r} is no place to publish to; give hf://datasets/ORG/NAME, s3://… or a folder")
        return to

    @property
    def dataset(self) -> str | None:
        """`ORG/NAME`, where it is a dataset of the Hub."""
        found = HUB.fullmatch(self.to)
        return found[1] if found else None

    @property
    def folder(self) -> str | None:
        """The folder or prefix, where it is one."""
        return None if self.dataset else self.to
