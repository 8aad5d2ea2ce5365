"""What a run's configuration asks for, as far as the rows of the table of stages depend on it."""

from __future__ import annotations

from ladm.flows.config import RunConfig


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


def ranks_by_a_measure(config: RunConfig) -> bool:
    """A ranking by one of these."""
    return config.select.rank_by in config.scorer.beside.names


def names_sources(config: RunConfig) -> bool:
    """A limit on each source file."""
    return config.select.max_source_share is not None
