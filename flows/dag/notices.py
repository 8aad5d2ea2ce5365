"""Saying beforehand that a run is going to score again what an earlier run scored, why, and how much that is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from ladm.flows.dag.lineage import Lineage
from ladm.flows.runs.record import RunRecord
from ladm.flows.runs.settings import setting_changes, settings_of
from ladm.flows.runs.stored_rows import jobs_of

LOOKED_AT = 3
"""Shards of the previous run whose scores are looked for; where all of them are there, no notice is given."""
OF_SCORES = ("window.", "scorer.", "model digest", "version of stage", "deduplicate", "decontaminate", "filters")
"""Settings that windows and their scores depend on, by how their names begin."""
_MOST_NAMED = 4


class ScoredAgain:
    """Finds out, at the first shards that come to be scored, whether all are scored again."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._previous: dict[str, Any] = record.previous or {}
        self._looked_at: set[str] = set()
        self._left = LOOKED_AT if "score" in self._previous.get("stages", {}) else 0

    @cached_property
    def _known(self) -> set[str]:
        return {shard["key"] for job in jobs_of(self._previous, "ingest") for shard in job["shards"]}

    def notice(self, lineage: Lineage, is_there: Callable[[], bool]) -> str | None:
        """The notice, if scores that the previous run had are not there for this one's settings; once.

        Args:
            lineage: One whose scores are about to be made.
            is_there: Looks up whether the store has them; it is asked of a few whose documents the previous run had.
        """
        documents = {shard.key for shard in lineage.made.get("ingest", [])} - self._looked_at
        if not self._left or documents.isdisjoint(self._known):
            return None
        self._looked_at |= documents
        found = is_there()
        self._left = self._left - 1 if found else 0
        if found:
            return None
        scored = self._previous["stages"]["score"]
        seconds = sum(job["seconds"] for job in jobs_of(self._previous, "score"))
        now = settings_of(self._record.settings())
        before = settings_of(self._previous)
        changes = [
            f"{name} is {new}, was {old}"
            for name, old, new in setting_changes(before, now)
            if name.startswith(OF_SCORES)
        ]
        why = "; ".join(changes[:_MOST_NAMED]) or "the version of a stage is another"
        more = f"; and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
        return (
            f"what run {self._previous['run_id']} scored is scored again, {scored['kept']:,} windows that took "
            f"{seconds:,.0f} s: {why}{more}"
        )
