"""Everything that can be refused is refused here, before any work: sources, window, model, layers, store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flows.config import RunConfig
from tasks.errors import ConfigError
from tasks.file_systems import io_errors, is_s3, reason_of
from tasks.model import ModelFacts, ResolvedModel, model_facts, resolve_model
from tasks.scorers.ladm import check_window_length, layers_left_out, left_out_line, measured_layers
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
    layers: list[int] = field(default_factory=list)
    """The model's layers that make the score; empty when the run ends before scoring."""
    layers_left_out: list[int] = field(default_factory=list)
    """The layers that `scorer.layers: all` does not mean, since they do not see the whole window."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages this run does, in order."""
        return STAGES[: STAGES.index(self.until) + 1]


def preflight(config: RunConfig, until: str = "export", tell: Callable[[str], None] | None = None) -> Plan:
    """Check that a run can be done, and find out all it needs to know.

    Args:
        config: The run's configuration.
        until: The last stage to do.
        tell: Gets a line of text when something slow happens (a model is downloaded), or layers are left out.

    Raises:
        UserError: One line that names the field and the fix.
    """
    if until not in STAGES:
        raise ConfigError(f"--until: {until!r} is no stage; choose one of {', '.join(STAGES)}")
    if "score" in STAGES[: STAGES.index(until) + 1]:
        check_window_length(config.scorer, config.window.length)
    files = list_sources(config.sources, config.ingest.identity)
    _check_store(config.store)
    model = None
    layers: list[int] = []
    left_out: list[int] = []
    if until not in ("ingest", "length"):
        model = resolve_model(config.scorer.model, tell)
        if model.tokenizer_digest is None:
            raise ConfigError(f"scorer.model: {config.scorer.model!r} has no tokenizer; give a model that has one")
        if until != "tokenize":
            layers, left_out = check_model(config, model_facts(model))
            if left_out and tell:
                tell(left_out_line(config.scorer, left_out, config.window.length))
    return Plan(config, until, files, model, layers, left_out)


def check_model(config: RunConfig, facts: ModelFacts) -> tuple[list[int], list[int]]:
    """Refuse layers that the model does not have or that do not see the whole window, and windows it cannot hold.

    Returns:
        The layers that make the score, and the layers that `scorer.layers: all` leaves out.
    """
    layers = measured_layers(config.scorer, facts, config.window.length)
    if facts.max_positions is not None and config.window.length > facts.max_positions:
        raise ConfigError(
            f"window.length: {config.window.length} is more than the {facts.max_positions} positions of "
            f"{config.scorer.model!r}; shorten the window or choose a model of longer context"
        )
    return layers, layers_left_out(config.scorer, facts, layers)


def _check_store(uri: str) -> None:
    """Refuse a store that cannot be written, by writing to it."""
    try:
        store = Store(uri, impatient=True)
        if is_s3(uri):
            _check_bucket(store)
        store.write_bytes(".writable", b"")
        store.remove(".writable")
    except ConfigError:
        raise
    except io_errors(ValueError, ImportError) as error:
        reason = reason_of(error)
        raise ConfigError(f"store: {uri!r} cannot be written ({reason}); give a folder or s3://bucket/prefix") from None


def _check_bucket(store: Store) -> None:
    """Refuse a bucket that does not exist: some servers would make one of any misspelt name."""
    bucket = store.root.split("/", 1)[0]
    if not bucket:
        raise ConfigError(f"store: {store.uri!r} names no bucket; give s3://bucket/prefix")
    try:
        store.fs.call_s3("head_bucket", Bucket=bucket)
    except FileNotFoundError:
        raise ConfigError(f"store: there is no bucket {bucket!r}; create it, or give s3://bucket/prefix") from None
    except PermissionError:
        pass  # who may write need not be allowed to ask; writing will tell
