"""The configuration of a run: the stages' own configurations, composed, read from YAML, changed by `--set`.

Everything wrong with it is told before any work, in one line that names the field and the fix.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from ladm.flows.complaints import explain
from ladm.flows.init.look import is_data, look_at
from ladm.flows.init.told import in_words
from ladm.flows.overrides import set_value, setting
from ladm.flows.yaml_text import read_yaml
from ladm.tasks.condition import check_columns_are_made
from ladm.tasks.errors import ConfigError
from ladm.tasks.exporters.formats import AnyExport
from ladm.tasks.exporters.jsonl import JsonlExport
from ladm.tasks.exporters.parquet import ParquetExport
from ladm.tasks.filters.config import FilterConfig, check_names
from ladm.tasks.places import expanded
from ladm.tasks.publishing.target import PublishConfig
from ladm.tasks.reading.readers import SourceConfig
from ladm.tasks.redact import checked_uri
from ladm.tasks.scorers.ladm import CALIBRATED, LadmConfig
from ladm.tasks.scorers.made_with import without_made_with
from ladm.tasks.selection import SelectConfig
from ladm.tasks.settings import Settings
from ladm.tasks.stages.benchmarks import DecontaminateConfig, source_entries
from ladm.tasks.stages.calibrate import CalibrateConfig
from ladm.tasks.stages.card import CardConfig
from ladm.tasks.stages.dedup import DeduplicateConfig
from ladm.tasks.stages.ingest import IngestConfig
from ladm.tasks.stages.length import LengthConfig
from ladm.tasks.storage.file_systems import keeps_files
from ladm.tasks.tokenizing.windows import WindowConfig

DEFAULT_STORE = "ladm-store"
NO_STORE = "the name is empty; give a folder or s3://bucket/prefix"

FITTING = "fitting"
"""`scorer.layers`: the calibration that fits, if there is one; else one of the run's own."""
OWN = "own"
"""`scorer.layers`: a calibration that the run makes of its corpus and the bundled sample."""
BY_CALIBRATION = (CALIBRATED, FITTING, OWN)
"""Choices of `scorer.layers` by which a calibration scores, or may."""


class ExecutionConfig(Settings):
    """The `execution:` section: retries, workers and the runner."""

    retries: int = Field(default=3, ge=0, le=20)
    """How many times a failed task is tried again."""
    retry_seconds: float = Field(default=2.0, ge=0, le=86_400)
    """Seconds to wait before the first retry. Each further wait is twice as long."""
    runner: Literal["threads", "ray", "dask"] = "threads"
    """Where tasks run: in threads of this process, or on a Ray or Dask cluster."""
    workers: int | None = Field(default=None, ge=1)
    """How many tasks of a CPU stage run at once. Default: the cores of the machine or the cluster."""
    models: int | None = Field(default=None, ge=1)
    """How many copies of the model score, each on a GPU of its own. Default: the number of GPUs, or one on CPUs. On
    threads no more than one where there are not several GPUs."""


class ScorerConfig(LadmConfig):
    """The `scorer:` section of a run."""

    layers_by_name: ClassVar[tuple[str, ...]] = (*LadmConfig.layers_by_name, FITTING, OWN)

    span: int = Field(default=128, ge=1)
    """Tokens in a span (the paper's l). Left out, a calibration says it; a run's own has a 32nd of the window."""
    layers: str | tuple[int, ...] = FITTING
    """Which layers are scored, or by which calibration. `fitting`: use the calibration shipped for this model, window
    length and span; without one, as `own`. `own`: make a calibration, once, from windows of the corpus and of the
    bundled sample. `calibrated`: use the one of `scorer.calibration`, or the shipped one, and refuse the run without
    one. `all`, a range `14-24`, or a list `3,7,9` (counted from 0): average the formula over these layers."""


class RunConfig(Settings):
    """All of a run: where from, what, by which score, how much, where to."""

    sources: list[SourceConfig] = Field(min_length=1)
    """The data to read. A path, or a list of paths, may stand for entries with only a `uri`."""
    store: str = DEFAULT_STORE
    """Where results are kept: a folder, or `s3://bucket/prefix`. Credentials come from the usual AWS chain, never from
    the configuration."""
    ingest: IngestConfig = IngestConfig()
    """How source files are read."""
    length: LengthConfig = LengthConfig()
    """How short documents are dropped before they are tokenized."""
    # left out of a dump where there are none: keys are as they were before there were filters
    filters: list[FilterConfig] = Field(default=[], exclude_if=lambda filters: not filters)
    """Filters that drop documents before they are tokenized, in this order. Default: none."""
    window: WindowConfig = WindowConfig()
    """Which part of a document is scored."""
    deduplicate: DeduplicateConfig | None = None
    """Which duplicates are dropped before scoring; `true` stands for the defaults. Default: none is looked for."""
    decontaminate: DecontaminateConfig | None = None
    """Drop documents that contain passages of these benchmark files. Default: none."""
    scorer: ScorerConfig = Field(default=ScorerConfig(), json_schema_extra=without_made_with)
    """How windows are scored, and by which model."""
    calibrate: CalibrateConfig = Field(default=CalibrateConfig(), exclude_if=lambda config: config == CalibrateConfig())
    """How the run makes a calibration of its own, where `scorer.layers` asks for one."""
    select: SelectConfig = SelectConfig()
    """Which documents are selected, by which score, and how many tokens of them."""
    export: list[AnyExport] = Field(default=[ParquetExport(), JsonlExport()])
    """The formats that the selection is written in, each once. A format's name may stand for its entry. With `[]` a run
    ends with the ranking."""
    card: CardConfig = Field(default=CardConfig(), exclude_if=lambda card: card == CardConfig())
    """What the head of the dataset card says, for the Hugging Face Hub."""
    publish: PublishConfig | None = Field(default=None, exclude_if=lambda publish: publish is None)
    """Where the exports and their card are published when the run is done; nowhere when not given."""
    execution: ExecutionConfig = ExecutionConfig()
    """How the run is carried out. Nothing here changes a result."""
    max_quarantined: float | None = Field(default=None, ge=0, le=1)
    """Fail before ranking if a larger share of a stage's records, or of the source files, had to be quarantined.
    `0.01` is 1 %. Default: no limit."""
    max_removed: float | None = Field(default=None, ge=0, le=1, exclude_if=lambda share: share is None)
    """Fail before ranking if a larger share of the last completed run's files, or of their documents, is gone, as when
    a disk is not mounted. `0.2` is 20 %. Default: no limit."""

    @model_validator(mode="after")
    def _ranked_by_what_is_scored(self) -> RunConfig:
        by = self.select.rank_by
        if by == "order" and self.scorer.layers not in BY_CALIBRATION:
            raise ValueError("select.rank_by: order comes with a calibration; set scorer.layers=calibrated")
        if by not in ("ladm", "order", *self.scorer.beside.names):
            raise ValueError(f"select.rank_by: {by} is not scored; add it to scorer.beside, or rank by another score")
        check_columns_are_made(
            self.select.where, self.scorer.beside.names, None if self.scorer.layers in BY_CALIBRATION else ()
        )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_publish(self) -> RunConfig:
        if self.publish and not self.export:
            raise ValueError("export: names no format, so there is nothing to publish; name one, or leave publish out")
        return self

    @field_validator("store")
    @classmethod
    def _no_secret_in_the_store(cls, store: str) -> str:
        if not store.strip():
            raise ValueError(NO_STORE)
        checked = checked_uri(expanded(store))
        if not keeps_files(store):
            raise ValueError(f"nothing can be kept at {store!r}; give a folder or s3://bucket/prefix")
        return checked

    @field_validator("sources", mode="before")
    @classmethod
    def _sources_from_uris(cls, sources: object) -> object:
        """Let `sources: data/*.jsonl` and a list of URIs stand for entries with only a `uri`."""
        return source_entries(sources)

    @field_validator("filters", mode="before")
    @classmethod
    def _filters_from_one(cls, filters: object) -> object:
        """Let `filters: repetition` stand for a list of one; what a string means is FilterConfig's matter."""
        return filters if isinstance(filters, list) else [] if filters is None else [filters]

    @field_validator("filters")
    @classmethod
    def _each_filter_has_its_name(cls, filters: list[FilterConfig]) -> list[FilterConfig]:
        return check_names(filters)

    @field_validator("deduplicate", mode="before")
    @classmethod
    def _deduplicate_from_bool(cls, deduplicate: object) -> object:
        """Let `deduplicate: true` stand for the defaults."""
        return ({} if deduplicate else None) if isinstance(deduplicate, bool) else deduplicate

    @field_validator("export", mode="before")
    @classmethod
    def _exports_from_formats(cls, exports: object) -> object:
        """Let `export: parquet` and a list of formats stand for entries with only a `format`."""
        entries = exports if isinstance(exports, list) else [exports]
        return [{"format": entry} if isinstance(entry, str) else entry for entry in entries]

    @field_validator("export")
    @classmethod
    def _each_format_once(cls, exports: list[AnyExport]) -> list[AnyExport]:
        formats = [export.format for export in exports]
        if len(set(formats)) < len(formats):
            raise ValueError("a format is named twice; name each once")
        return exports


def load_config(
    path: str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    store: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> RunConfig:
    """Read and validate a run's configuration.

    Args:
        path: A YAML file, or data that has none (`ladm init`); the bundled sample's when not given.
        overrides: `a.b=c` settings, applied in order, whose values are YAML; or dotted path → value.
        store: Takes the place of the configuration's own `store`.
        tell: Told, of data without a configuration, what was found in it.

    Raises:
        UserError: With one line that names the field and the fix.
    """
    if path is None:
        values = sample_config()
    elif is_data(path):
        values = _values_for_data(path, store_uri(store), tell)
    else:
        values = _read_yaml(Path(path))
    settings = list(overrides.items() if isinstance(overrides, Mapping) else map(setting, overrides))
    changed = {name for name, _ in settings}
    if path is None and "window.length" in changed and "scorer.layers" not in changed:
        del values["scorer"]["span"]  # which is for the sample's windows; a calibration for others has its own
    for name, value in settings:
        set_value(values, name, value)
    return validated(values, store)


def validated(values: dict[str, Any], store: str | None = None) -> RunConfig:
    """The configuration that values make; without a store in them, the one that a command would mean.

    Raises:
        ConfigError: With one line that names the field and the fix.
    """
    if store is not None or "store" not in values:
        values = {**values, "store": store_uri(store)}
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, RunConfig)) from None


def store_uri(option: str | None) -> str:
    """The store that a command means: its `--store`, else $LADM_STORE, else a folder here.

    Raises:
        ConfigError: It names a variable that is not set, or is empty, as that of a script may be.
    """
    if option is not None and not option.strip():
        raise ConfigError(f"--store: {NO_STORE}")
    if option is None and os.environ.get("LADM_STORE", "").isspace():
        raise ConfigError(f"LADM_STORE: {NO_STORE}, or unset it")
    try:
        return expanded(option or os.environ.get("LADM_STORE") or DEFAULT_STORE)
    except ValueError as error:
        raise ConfigError(f"{'--store' if option else 'LADM_STORE'}: {error}") from None


def sample_config() -> dict[str, Any]:
    """The configuration of the bundled sample, with its files' folder filled in."""
    # Where the folder really is: a document's id holds the path of its file, and a link to it must make no difference.
    folder = Path(str(files("ladm.flows.sample"))).resolve()
    values: dict[str, Any] = read_yaml((folder / "config.yaml").read_text(encoding="utf-8"))
    for source in values["sources"]:
        source["uri"] = str(folder / source["uri"])
    return values


def _values_for_data(place: str, store: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """The configuration that `ladm init` would write for some data."""
    look = look_at(place, store)
    for line in in_words(look):
        tell(line)
    tell(f"no configuration was given; `ladm init {shlex.quote(place)}` writes this one down, to be changed and run")
    return look.settings(store)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration ({error.strerror}); give an existing file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; a configuration is a YAML file") from None
    except ValueError:
        raise ConfigError(f"{str(path)!r} is no path (it holds a zero byte); give an existing file") from None
    try:
        values = read_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: the configuration is not a mapping; see `ladm run --help` for an example")
    return values
