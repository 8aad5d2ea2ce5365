"""Cutting: in which parts a large source file is read, each by a job of its own (`reading/cutting.py`).

Nothing of it is read but what tells where it can be cut; a file that cannot be is read by one job from its beginning.
"""

from __future__ import annotations

from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Part
from ladm.tasks.reading.cutting import parts_of_lines, parts_of_parquet
from ladm.tasks.reading.readers import SourceConfig, UnreadableFile, detect_format
from ladm.tasks.reading.sources import CONTENT, ListedFile, check_unchanged
from ladm.tasks.stages.ingest import IngestConfig, open_source
from ladm.tasks.storage.store import Store

FORMATS = ("jsonl", "parquet")


def can_be_cut(listed: ListedFile, config: IngestConfig) -> bool:
    """Whether a file is large enough, and of such a kind, that it may be read in parts."""
    file = listed.file
    if not config.part_bytes or file.size < 2 * config.part_bytes or file.problem or file.version.startswith(CONTENT):
        return False
    return format_of(file.uri, listed.config) in FORMATS


def format_of(uri: str, source: SourceConfig) -> str:
    """The format of a file, or nothing where there is no telling."""
    try:
        return detect_format(uri, source)
    except UnreadableFile:
        return ""


def cut(job: Job, store: Store, key: str) -> Outcome:
    """Say in which parts a file is read; in none where it cannot be cut."""
    assert job.source is not None
    parts: list[Part] = []
    part_bytes = int(job.config["part_bytes"])
    with open_source(job.source) as file:
        if job.config["format"] == "parquet":
            parts = parts_of_parquet(file, part_bytes)
        else:
            parts = parts_of_lines(file, part_bytes, max(part_bytes, int(job.config["shard_bytes"])))
    check_unchanged(job.source)
    return Outcome(counts=Counts(received=1, kept=1), parts=parts)


STAGE = Stage(name="cut", version="1", compute=cut)
