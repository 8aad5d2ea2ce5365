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
    """How many tokens to select of one domain, or of its documents of one length."""

    domain: str
    """The domain's name."""
    bucket: tuple[int | None, int | None] | None = None
    """Only documents of this length: `[at least, fewer than]` tokens; `null` leaves an end open. Default: all."""
    tokens: int = Field(gt=0)
    """How many tokens to select at most."""

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
    """Short documents that are selected beside the long ones."""

    share: float = Field(gt=0, lt=1)
    """Share of the budget that is filled with documents shorter than a window, drawn at random. The domains are mixed
    as among the selected long documents."""
    seed: int = Field(default=0, ge=0)
    """Seed of the random draw."""


class SelectConfig(Settings):
    """Which documents are selected. Tokens are always those of whole documents."""

    budget_tokens: int | None = Field(default=None, gt=0)
    """How many tokens to select. The selection never exceeds this, and is at most one document smaller if there is
    enough to select from. Default: select everything that was ranked."""
    allocation: Literal["proportional", "published", "uniform", "quotas"] = "proportional"
    """How the budget is shared among the domains. `proportional`: the best share of each domain, the same share for all
    (LADM, section 3.3). `uniform`: the same number of tokens for each domain. `quotas`: as listed in `quotas`.
    `published`: as LADM's released filter does it, the best whole percent of each domain's documents, the first percent
    that reaches the budget; it may exceed the budget."""
    quotas: list[Quota] = Field(default=[])
    """For `allocation: quotas`: a list of `{domain, bucket: [at least, fewer than], tokens}`. Two quotas must not share
    documents. What no quota asks for is not selected."""
    rank_by: RankBy = "ladm"
    """The score to rank by. Scorers other than `ladm` must be listed in `scorer.beside`; `order` comes with a
    calibration."""
    document_score: Literal["max", "mean", "first"] = "max"
    """How the scores of a document's windows become one score."""
    drop_top: float = Field(default=0.0, ge=0, lt=1)
    """Leave out this share of the documents at the top of each domain's ranking."""
    drop_bottom: float = Field(default=0.0, ge=0, lt=1)
    """Leave out this share of the documents at the bottom of each domain's ranking."""
    min_tokens_per_domain: int | None = Field(default=None, gt=0)
    """For `allocation: proportional`: first take each domain's best documents until this many tokens are reached."""
    max_source_share: float | None = Field(default=None, gt=0, le=1)
    """No source file fills more than this share of the budget, or of the sum of the quotas. Not for `published`."""
    max_copies: int = Field(default=1, ge=1, le=1000)
    """How often one document may be selected. If a domain or quota has too few documents to reach its target, it takes
    them again, the best first, up to this many times in all. Not for `published`."""
    gate: float | Literal["off"] | None = None
    """How unlike real text a document may be, as the distance that a calibration measures. Documents beyond it are held
    back. `off`: none is held back, and none loses rank. Default: the calibration's own threshold."""
    replay: ReplayConfig | None = None
    """Fill a share of the budget with short documents. Default: none."""
    where: str | None = None
    """An SQL condition over a document's scores, measured columns and metadata; window functions are allowed. Documents
    for which it is false or null are not ranked."""

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
