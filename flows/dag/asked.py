"""What a run's configuration asks for, as far as the rows of the table of stages depend on it."""

from __future__ import annotations

from ladm.flows.config import OWN, RunConfig
from ladm.tasks.scorers.ladm import CALIBRATED


def replays(config: RunConfig) -> bool:
    """Short documents beside the long ones."""
    return config.select.replay is not None


def filters(config: RunConfig) -> bool:
    """Filters by text and metadata."""
    return bool(config.filters)


def sifts(config: RunConfig) -> bool:
    """Duplicates or benchmark passages."""
    return bool(config.deduplicate or config.decontaminate)


def measures(config: RunConfig) -> bool:
    """Scorers beside `ladm`."""
    return bool(config.scorer.beside.names)


def is_calibrated(config: RunConfig) -> bool:
    """Scores by a calibration, which may have a gate."""
    return config.scorer.layers in (CALIBRATED, OWN)


def calibrates(config: RunConfig) -> bool:
    """Scores by a calibration that the run makes itself."""
    return config.scorer.layers == OWN


def ranks_by_measures(config: RunConfig) -> bool:
    """A ranking by what scorers beside `ladm` measured, or a condition on it."""
    return config.select.reads_measures


def ranks_by_documents(config: RunConfig) -> bool:
    """A ranking for which the documents themselves are read: where they come from, or their metadata."""
    return config.select.reads_documents
