"""What comes of a run's jobs: one that is done, one that failed, and what the run did not get though nothing failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ladm.flows.dag.remedies import Remedy
from ladm.tasks.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Done:
    """A job that finished: its manifest, and whether the store already had it."""

    source: str
    manifest: Manifest
    cached: bool

    def as_record(self) -> dict[str, Any]:
        """The job as it stands in a run's record."""
        manifest = self.manifest
        return {
            "stage": manifest.stage,
            "shard": manifest.label,
            "source": self.source,
            "cached": self.cached,
            "key": manifest.key,
            **manifest.counts.as_record(),
            **manifest.measures,
            "seconds": manifest.seconds,
            "shards": [shard.as_dict() for shard in manifest.shards],
            "files": [file.as_dict() for file in manifest.files],
            "quarantine": manifest.quarantine.as_dict() if manifest.quarantine else None,
        }


@dataclass(frozen=True)
class Shortfall:
    """Something that a run did not get, though nothing failed: a source, a domain's name, tokens."""

    text: str
    """What, in one line."""
    query: str
    """What to ask `ladm sql` about it."""


@dataclass(frozen=True)
class Failure:
    """A job that failed for good."""

    stage: str
    label: str
    error: str
    source: str = ""
    """URI of the source file that the shard comes from; empty for the stages that work on all shards."""
    remedy: Remedy = "report"
    """What can be done about it."""
