"""How fast the stages of a store were in its past runs, and how much they wrote: what its next run is measured by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ladm.flows.config import RunConfig
from ladm.flows.dag.stages import MODEL_STAGES
from ladm.flows.runs.read import read_record, run_ids
from ladm.flows.runs.stored_rows import jobs_where
from ladm.tasks.errors import RecordError
from ladm.tasks.scorers.known_windows import REUSED
from ladm.tasks.storage.store import Store

LOOKED_AT = 5
"""Runs that did work, the newest first."""
COSTS = ("model", "formula", "d_cds", "layers", "beside", "dtype", "device")
"""Settings of the scorer by which a window takes longer or shorter; beside the window's length."""


@dataclass(frozen=True)
class Speeds:
    """What a record costs in each stage. A record is what the stage counts: a document, or a window."""

    seconds: Mapping[str, float]
    """Stage → seconds of its jobs a record."""
    written: Mapping[str, float]
    """Stage → bytes of its files a record."""
    wall: float
    """Seconds of a run for each second of its jobs: less than 1 where jobs went on side by side."""
    runs: int
    """Past runs that this is of."""


def past_speeds(store: Store, config: RunConfig) -> Speeds:
    """The speeds of the newest runs of a store that did any work.

    How long a window takes the model is told only by runs that scored as the configuration, settled, says.
    """
    records: list[dict[str, Any]] = []
    for run_id in reversed(run_ids(store)):
        try:
            record = read_record(store, run_id, stored=True)
        except RecordError:
            continue
        if any(job["seconds"] for job in jobs_where(record, "cached", False)):
            records.append(record)
        if len(records) == LOOKED_AT:
            break
    way = way_of_scoring(config.model_dump(mode="json"))
    return speeds_of(records, lambda record: way_of_scoring(record["config"]) == way)


def way_of_scoring(config: Mapping[str, Any]) -> list[Any]:
    """What the time of a window depends on, of a configuration as records have it."""
    return [config["window"]["length"], *(config["scorer"].get(name) for name in COSTS)]


def speeds_of(
    records: Iterable[Mapping[str, Any]], scored_alike: Callable[[Mapping[str, Any]], bool] = lambda _: True
) -> Speeds:
    """The speeds of some runs, from their records; of the model's stages, from those that are `scored_alike`."""
    seconds, records_in = defaultdict[str, float](float), defaultdict[str, int](int)
    written, records_written = defaultdict[str, int](int), defaultdict[str, int](int)
    most, wall, runs = 0.0, 1.0, 0
    for record in records:
        runs += 1
        busy, alike = 0.0, scored_alike(record)
        for job in record["shards"]:
            files = [*job["shards"], *job["files"]]
            written[job["stage"]] += sum(file["bytes"] for file in files)
            records_written[job["stage"]] += job["in"]
            if not job["cached"] and not job.get(REUSED):  # else the time is that of starting, not of its windows
                busy += job["seconds"]
                if alike or job["stage"] not in MODEL_STAGES:
                    seconds[job["stage"]] += job["seconds"]
                    records_in[job["stage"]] += job["in"]
        if busy > most:  # the run that did most is least about its beginning and end
            most, wall = busy, record["seconds"] / busy
    return Speeds(
        {stage: seconds[stage] / number for stage, number in records_in.items() if number},
        {stage: written[stage] / number for stage, number in records_written.items() if number},
        wall,
        runs,
    )
