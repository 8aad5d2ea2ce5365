"""Everything that can be refused is refused here, before any work: sources, window, model, layers, store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flows.config import RunConfig
from tasks.errors import ConfigError
from tasks.model import ModelFacts, ResolvedModel, model_facts, resolve_model
from tasks.scorers.ladm import check_window_length, wanted_layers
from tasks.sources import ListedFile, list_sources
from tasks.store import Store

STAGES = ("ingest", "length", "tokenize", "score", "rank", "export")


@dataclass(frozen=True)
class Plan:
    """A run that has been found possible: its configuration, source files and resolved model."""

    config: RunConfig
    until: str
    files: list[ListedFile]
    model: ResolvedModel | None
    """None when the run ends before a tokenizer is needed."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages this run does, in order."""
        return STAGES[: STAGES.index(self.until) + 1]


def preflight(config: RunConfig, until: str = "export", tell: Callable[[str], None] | None = None) -> Plan:
    """Check that a run can be done, and find out all it needs to know.

    Args:
        config: The run's configuration.
        until: The last stage to do.
        tell: Gets a line of text when something slow happens (a model is downloaded).

    Raises:
        UserError: One line that names the field and the fix.
    """
    if until not in STAGES:
        raise ConfigError(f"--until: {until!r} is no stage; choose one of {', '.join(STAGES)}")
    if "score" in STAGES[: STAGES.index(until) + 1]:
        check_window_length(config.scorer, config.window.length)
    files = list_sources(config.sources, config.ingest.identity)
    model = None
    if until not in ("ingest", "length"):
        model = resolve_model(config.scorer.model, tell)
        if model.tokenizer_digest is None:
            raise ConfigError(f"scorer.model: {config.scorer.model!r} has no tokenizer; give a model that has one")
        if until != "tokenize":
            check_model(config, model_facts(model))
    _check_store(config.store)
    return Plan(config, until, files, model)


def check_model(config: RunConfig, facts: ModelFacts) -> None:
    """Refuse layers that the model does not have or that do not see the whole window, and windows it cannot hold."""
    wanted = wanted_layers(config.scorer, facts.n_layers)
    if partial := sorted(set(wanted) - set(facts.attention_layers)):
        full = ",".join(str(layer) for layer in facts.attention_layers)
        raise ConfigError(
            f"scorer.layers: layers {partial} of {config.scorer.model!r} have no full attention; "
            f"set scorer.layers={full}"
        )
    if facts.max_positions is not None and config.window.length > facts.max_positions:
        raise ConfigError(
            f"window.length: {config.window.length} is more than the {facts.max_positions} positions of "
            f"{config.scorer.model!r}; shorten the window or choose a model of longer context"
        )


def _check_store(uri: str) -> None:
    try:
        store = Store(uri)
        if store.local:
            store.write_bytes(".writable", b"")
            store.remove(".writable")
    except (OSError, ValueError, ImportError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise ConfigError(f"store: {uri!r} cannot be written ({reason}); give a folder or s3://bucket/prefix") from None
