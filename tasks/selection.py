"""What the `select:` section of a configuration may say."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from ladm.tasks.condition import check_condition, measured_columns, reads_documents
from ladm.tasks.scorers.registry import RankBy
from ladm.tasks.settings import Settings

OWN_SCORES = ("ladm", "order")
"""The scores that the stage `score` gives; others are measured beside it."""


class Quota(Settings):
    """One entry of `select.quotas`: so many tokens of one domain, of documents of one length."""

    domain: str
    bucket: tuple[int | None, int | None] | None = None
    """Documents of at least the first and fewer than the second number of tokens; null leaves an end open."""
    tokens: int = Field(gt=0)
    """Tokens to select at most, counted on whole documents."""

    @field_validator("bucket")
    @classmethod
    def _bucket_holds_something(cls, bucket: tuple[int | None, int | None] | None) -> object:
        shortest, end = bucket or (None, None)
        if (shortest or 0) < 0 or (end is not None and end <= (shortest or 0)):
            raise ValueError(f"[{shortest}, {end}] holds no length; give [at least, fewer than], e.g. [4096, 32768]")
        return bucket

    def overlaps(self, other: Quota) -> bool:
        """Whether a document could belong to both quotas."""
        (a_min, a_max), (b_min, b_max) = (quota.bucket or (None, None) for quota in (self, other))
        apart = (a_max is not None and a_max <= (b_min or 0)) or (b_max is not None and b_max <= (a_min or 0))
        return self.domain == other.domain and not apart


class ReplayConfig(Settings):
    """Short documents beside the long ones (`select.replay`)."""

    share: float = Field(gt=0, lt=1)
    """Share of the budget that goes to documents that fill no window, in the proportions of the selected domains."""
    seed: int = Field(default=0, ge=0)
    """Another seed takes others."""


class SelectConfig(Settings):
    """The `select:` section."""

    budget_tokens: int | None = Field(default=None, gt=0)
    """Tokens to select at most, counted on whole documents; everything that was ranked when not given."""
    allocation: Literal["proportional", "published", "uniform", "quotas"] = "proportional"
    """`proportional`: the same top share of every domain (LADM, section 3.3); `published`: as the released filter
    does it, in whole percents of each domain's documents, up to the percent that passes the budget; `uniform`: the
    same tokens of every domain; `quotas`: as listed in `quotas`."""
    quotas: list[Quota] = Field(default=[])
    """For `allocation: quotas`: `{domain, bucket: [at least, fewer than], tokens}`, without overlaps."""
    rank_by: RankBy = "ladm"
    """The score that documents are ranked by; any but `ladm` must be among those that the run computes."""
    document_score: Literal["max", "mean", "first"] = "max"
    """A document's score from its windows'."""
    drop_top: float = Field(default=0.0, ge=0, lt=1)
    """Share of each domain's documents left out from the top of its ranking, before selection."""
    drop_bottom: float = Field(default=0.0, ge=0, lt=1)
    """Share of each domain's documents left out from the bottom of its ranking, before selection."""
    min_tokens_per_domain: int | None = Field(default=None, gt=0)
    """For `proportional`: every domain's best documents up to the one that reaches this come first."""
    max_source_share: float | None = Field(default=None, gt=0, le=1)
    """No source file gets more than this share of the budget."""
    max_copies: int = Field(default=1, ge=1, le=1000)
    """Times that a document may be selected: a target that is short for want of documents takes them again, best
    first, up to so many times."""

    gate: float | Literal["off"] | None = None
    """Of a calibrated run: a document is held back whose distance from real text is greater. Not given: the
    calibration's own threshold. `off`: none is held back, and none loses in rank for it."""
    replay: ReplayConfig | None = None
    """Short documents to be replayed; none when not given."""
    where: str | None = None
    """An SQL condition over a document's scores, measured columns and metadata, window functions allowed
    (`tasks/condition.py`). A document for which it is false or null is not ranked."""

    @field_validator("gate", mode="before")
    @classmethod
    def _off_is_a_word(cls, gate: object) -> object:
        """YAML takes a bare `off` for false."""
        return "off" if gate is False else gate

    @field_validator("where")
    @classmethod
    def _one_harmless_condition(cls, where: str | None) -> str | None:
        where = where if where is None else where.strip()
        if where is not None:
            check_condition(where)
        return where

    @field_validator("quotas")
    @classmethod
    def _no_document_in_two_quotas(cls, quotas: list[Quota]) -> list[Quota]:
        for (first, one), (second, other) in itertools.combinations(enumerate(quotas), 2):
            if one.overlaps(other):
                raise ValueError(
                    f"quotas {first} and {second} both ask for documents of {one.domain!r} of the same length; "
                    "give them buckets that do not overlap"
                )
        return quotas

    @model_validator(mode="after")
    def _keys_fit_together(self) -> SelectConfig:
        if self.drop_top + self.drop_bottom >= 1:
            raise ValueError("drop_top and drop_bottom leave nothing to select; their sum must be below 1")
        if (self.allocation == "quotas") != bool(self.quotas):
            raise ValueError("allocation: quotas and the list of quotas need each other; give both or neither")
        if self.min_tokens_per_domain is not None and self.allocation != "proportional":
            raise ValueError(f"min_tokens_per_domain is for allocation: proportional, not {self.allocation}")
        if self.max_source_share is not None and self.allocation == "published":
            raise ValueError("max_source_share does not go with allocation: published; choose another allocation")
        if self.max_source_share is not None and self.goal_tokens is None:
            raise ValueError("max_source_share is a share of budget_tokens; give budget_tokens too")
        if self.max_copies > 1 and (self.allocation == "published" or self.goal_tokens is None):
            raise ValueError("max_copies above 1 needs a budget_tokens or quotas, and an allocation but published")
        asked = sum(quota.tokens for quota in self.quotas)
        if self.budget_tokens is not None and asked > self.budget_tokens:
            raise ValueError(
                f"the quotas ask for {asked} tokens, more than budget_tokens ({self.budget_tokens}); lower them, or "
                "raise or leave out budget_tokens"
            )
        if self.replay and self.long_tokens is None:
            raise ValueError("replay.share is a share of budget_tokens; give budget_tokens too")
        if self.replay and asked > (self.long_tokens or 0):
            raise ValueError(
                f"the quotas ask for {asked} tokens, more than replay leaves of budget_tokens ({self.long_tokens}); "
                "lower them or replay.share, or raise budget_tokens"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What newer settings leave as it was is written as before there were any, and so are the keys made by it."""
        values: dict[str, Any] = handler(self)
        return {name: one for name, one in values.items() if one is not None or name not in ("where", "gate")}

    @property
    def holds_back(self) -> bool:
        """Whether documents may be held back from the ranking."""
        return self.where is not None

    @property
    def reads_measures(self) -> bool:
        """Whether ranking reads what scorers beside `ladm` measured."""
        return self.rank_by not in OWN_SCORES or bool(measured_columns(self.where))

    @property
    def reads_documents(self) -> bool:
        """Whether ranking reads where documents come from, or their metadata."""
        return self.max_source_share is not None or reads_documents(self.where)

    @property
    def replay_tokens(self) -> int:
        """Tokens of the budget that are for short documents."""
        share = self.replay.share if self.replay else 0
        return int(Decimal(str(share)) * (self.budget_tokens or 0))  # exact: 0.29 of 100 is 29

    @property
    def long_tokens(self) -> int | None:
        """Tokens of the budget that are for ranked documents."""
        return None if self.budget_tokens is None else self.budget_tokens - self.replay_tokens

    @property
    def goal_tokens(self) -> int | None:
        """Tokens of ranked documents that the selection should hold: the sum of the quotas, or else the budget's."""
        return sum(quota.tokens for quota in self.quotas) or self.long_tokens

    @property
    def source_tokens(self) -> int | None:
        """Tokens that may come from one source file."""
        if self.max_source_share is None or self.goal_tokens is None:
            return None
        return int(Decimal(str(self.max_source_share)) * self.goal_tokens)
