"""The rows of the table of stages that measure columns of windows, which differ in what they measure alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ladm.flows.config import RunConfig
from ladm.flows.dag.rows import Row, Take
from ladm.tasks.stages import measure


def measuring(
    named: str,
    asks: Callable[..., Any],
    wanted: Callable[[RunConfig], bool] = lambda config: True,
    asked_by: str = "",
    *,
    by_model: bool = True,
) -> Row:
    """A row that measures columns of windows; what the model is needed for shares the pass of the score."""
    return Row(
        measure.STAGE,
        "shard",
        (Take("windows", "tokenize", "each"), Take("drops", "dedup", "own")),
        asks,
        units=("windows", "windows"),
        asked=wanted,
        asked_by=asked_by,
        receives=("dedup", "tokenize"),
        needs="weights" if by_model else "tokenizer",
        holds_model=by_model,
        named=named,
        along_with="score",
        shares_pass_of="score" if by_model else "",
        takes_over=True,
        shown="windows" if by_model else "shards",
    )
