"""The `select:` section in words, for the dataset card and the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ALLOCATIONS = {
    "proportional": "the same top share of every domain",
    "published": "whole percents of every domain's documents, up to the one that passes the budget",
    "uniform": "the same number of tokens from every domain",
    "quotas": "tokens as listed for domains and document lengths",
}
"""What each allocation does, in words."""


def selection_text(select: dict[str, Any], harmless: Callable[[str], str]) -> str:
    """The `select:` section in words, without a full stop; its condition made harmless where it is shown."""
    budget = select["budget_tokens"]
    words = [
        f"Budget: {f'{budget:,} tokens' if budget else 'none'}",
        f"allocation `{select['allocation']}`: {ALLOCATIONS[select['allocation']]}",
    ]
    if select["min_tokens_per_domain"]:
        words.append(f"at least {select['min_tokens_per_domain']:,} tokens of every domain")
    if select["max_source_share"]:
        words.append(f"at most {select['max_source_share']:.4g} of it from one source file")
    if select["replay"]:
        words.append(
            f"{select['replay']['share']:.4g} of it short documents, drawn with seed {select['replay']['seed']}"
        )
    if select["max_copies"] > 1:
        words.append(f"a document is taken at most {select['max_copies']:,} times")
    for end in ("top", "bottom"):
        if select[f"drop_{end}"]:
            words.append(f"without the {end} {select[f'drop_{end}']:.4g} of every domain's documents")
    if select.get("where"):
        words.append(f"of the documents for which `select.where` holds: {harmless(select['where'])}")
    return "; ".join(words)
