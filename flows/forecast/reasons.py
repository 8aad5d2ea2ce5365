"""Why a run has something to do: other sources, other settings, another version, or what is gone from the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ladm.flows.dag.plan import Plan
from ladm.flows.forecast.survey import Survey

MOST_NAMED = 6
VERSIONS = ("version", "model digest")


def reasons_of(plan: Plan, found: Survey) -> list[str]:
    """The reasons, one a line; none where nothing is left to do."""
    if not any(found.todo.values()):
        return []
    previous = found.record.previous
    if previous is None:
        return ["the store has no completed run" + (", but some of the work" if found.record.done else "")]
    reasons = [*_sources(plan, previous)]
    for name, before, now in found.changed[:MOST_NAMED]:
        kind = "version changed" if name.startswith(VERSIONS) else "setting changed"
        reasons.append(f"{kind}: {name} is {now}, was {before}")
    if len(found.changed) > MOST_NAMED:
        reasons.append(f"and {len(found.changed) - MOST_NAMED} more settings changed")
    if not reasons and plan.until == previous["until"]:
        reasons.append("results are missing from the store, or damaged")
    return reasons


def _sources(plan: Plan, previous: Mapping[str, Any]) -> list[str]:
    """What is other about the source files than in the previous run."""
    before = {one.get("name") or one["uri"]: (one["size"], one["version"]) for one in previous["sources"]}
    now = {listed.file.known_as: (listed.file.size, listed.file.version) for listed in plan.files}
    counted = {
        "added": len(now.keys() - before.keys()),
        "changed": sum(1 for name in now.keys() & before.keys() if now[name] != before[name]),
        "removed": len(before.keys() - now.keys()),
    }
    told = [f"{number:,} {what}" for what, number in counted.items() if number]
    return [f"sources changed: {', '.join(told)} since run {previous['run_id']}"] if told else []
