"""The formats there are: what an entry of the `export:` list may be, and which exporter writes it."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter

from ladm.tasks import plugins
from ladm.tasks.exporters.arrow import DatasetsExporter
from ladm.tasks.exporters.interface import ExportConfig, Exporter
from ladm.tasks.exporters.jsonl import JsonlExporter
from ladm.tasks.exporters.mds import MdsExporter
from ladm.tasks.exporters.megatron import MegatronExporter
from ladm.tasks.exporters.npy import NpyExporter
from ladm.tasks.exporters.parquet import ParquetExporter

BUILT_IN: tuple[type[Exporter[Any]], ...] = (
    ParquetExporter,
    JsonlExporter,
    DatasetsExporter,
    MdsExporter,
    MegatronExporter,
    NpyExporter,
)
"""Every exporter of ladm's own: the one place to add one at. Other packages add theirs by entry points."""


def _format_of(exporter: type[Exporter[Any]]) -> str:
    return str(exporter.entry.model_fields["format"].default)


def _wrong_with(name: str, exporter: Any) -> str:
    """What keeps an exporter of another package from being used."""
    if not (isinstance(exporter, type) and issubclass(exporter, Exporter)):
        return "it is not derived from ladm.tasks.exporters.interface.Exporter"
    entry = getattr(exporter, "entry", None)
    if not (isinstance(entry, type) and issubclass(entry, ExportConfig)) or not hasattr(exporter, "how_to_read"):
        return "it has no entry that is derived from ExportConfig, or no how_to_read"
    if _format_of(exporter) != name:
        return f"its format is {_format_of(exporter)!r}, not the entry point's name"
    if exporter.__abstractmethods__:
        return f"it lacks {sorted(exporter.__abstractmethods__)[0]}"
    names = [one.entry.__name__ for one in BUILT_IN]
    return f"ladm has a class {entry.__name__} of its own" if entry.__name__ in names else ""


ADDED, UNUSABLE = plugins.loaded(plugins.EXPORTERS, _wrong_with, [_format_of(one) for one in BUILT_IN])
"""Exporters of other packages: format → class, and format → why it cannot be used."""
EXPORTERS: dict[str, type[Exporter[Any]]] = {_format_of(one): one for one in BUILT_IN} | ADDED
"""Format → what writes it."""


def distribution_of(form: str) -> str | None:
    """The package, with its version, that a format comes from; None for ladm's own."""
    return plugins.distribution_of(plugins.EXPORTERS, form) if form in ADDED else None


def _class_of(entry: Any) -> str | None:
    """The name of the class that an entry means; a class name, since messages about an entry leave those out."""
    name = entry.get("format") if isinstance(entry, dict) else getattr(entry, "format", None)
    if isinstance(name, str) and name in UNUSABLE and name not in EXPORTERS:
        raise ValueError(UNUSABLE[name])
    return EXPORTERS[name].entry.__name__ if isinstance(name, str) and name in EXPORTERS else None


if TYPE_CHECKING:
    AnyExport = ExportConfig
else:
    AnyExport = Annotated[
        functools.reduce(operator.or_, (Annotated[one.entry, Tag(one.entry.__name__)] for one in EXPORTERS.values())),
        Discriminator(
            _class_of,
            custom_error_type="export_format",
            custom_error_message=f"format should be one of {', '.join(EXPORTERS)}",
        ),
    ]
"""One entry of the `export:` list."""


def export_config(entry: dict[str, Any]) -> ExportConfig:
    """An entry, validated by the class of its format."""
    config: ExportConfig = TypeAdapter(AnyExport).validate_python(entry)
    return config
