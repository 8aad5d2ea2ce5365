"""The formats there are: what an entry of the `export:` list may be, and which exporter writes it."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter

from ladm.tasks.exporters.arrow import DatasetsExporter
from ladm.tasks.exporters.interface import ExportConfig, Exporter
from ladm.tasks.exporters.jsonl import JsonlExporter
from ladm.tasks.exporters.mds import MdsExporter
from ladm.tasks.exporters.megatron import MegatronExporter
from ladm.tasks.exporters.npy import NpyExporter
from ladm.tasks.exporters.parquet import ParquetExporter

ALL: tuple[type[Exporter[Any]], ...] = (
    ParquetExporter,
    JsonlExporter,
    DatasetsExporter,
    MdsExporter,
    MegatronExporter,
    NpyExporter,
)
"""Every exporter: the one place to add one at."""

EXPORTERS: dict[str, type[Exporter[Any]]] = {one.entry.model_fields["format"].default: one for one in ALL}
"""Format → what writes it."""


def _class_of(entry: Any) -> str | None:
    """The name of the class that an entry means; a class name, since messages about an entry leave those out."""
    name = entry.get("format") if isinstance(entry, dict) else getattr(entry, "format", None)
    return EXPORTERS[name].entry.__name__ if isinstance(name, str) and name in EXPORTERS else None


if TYPE_CHECKING:
    AnyExport = ExportConfig
else:
    AnyExport = Annotated[
        functools.reduce(operator.or_, (Annotated[one.entry, Tag(one.entry.__name__)] for one in ALL)),
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
