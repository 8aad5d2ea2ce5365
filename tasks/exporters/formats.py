"""The formats there are: what an entry of the `export:` list may be, and which exporter writes it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter

from ladm.tasks.exporters.arrow import DatasetsExport, DatasetsExporter
from ladm.tasks.exporters.interface import ExportConfig, Exporter
from ladm.tasks.exporters.jsonl import JsonlExport, JsonlExporter
from ladm.tasks.exporters.mds import MdsExport, MdsExporter
from ladm.tasks.exporters.megatron import MegatronExport, MegatronExporter
from ladm.tasks.exporters.npy import NpyExport, NpyExporter
from ladm.tasks.exporters.parquet import ParquetExport, ParquetExporter

FORMATS: dict[str, tuple[type[ExportConfig], type[Exporter[Any]]]] = {
    "parquet": (ParquetExport, ParquetExporter),
    "jsonl.zst": (JsonlExport, JsonlExporter),
    "datasets": (DatasetsExport, DatasetsExporter),
    "mds": (MdsExport, MdsExporter),
    "megatron": (MegatronExport, MegatronExporter),
    "npy": (NpyExport, NpyExporter),
}
"""Format → what its entry may say, and what writes it."""


def _class_of(entry: Any) -> str | None:
    """The name of the class that an entry means; a class name, since messages about an entry leave those out."""
    name = entry.get("format") if isinstance(entry, dict) else getattr(entry, "format", None)
    return FORMATS[name][0].__name__ if isinstance(name, str) and name in FORMATS else None


AnyExport = Annotated[
    Annotated[ParquetExport, Tag("ParquetExport")]
    | Annotated[JsonlExport, Tag("JsonlExport")]
    | Annotated[DatasetsExport, Tag("DatasetsExport")]
    | Annotated[MdsExport, Tag("MdsExport")]
    | Annotated[MegatronExport, Tag("MegatronExport")]
    | Annotated[NpyExport, Tag("NpyExport")],
    Discriminator(
        _class_of,
        custom_error_type="export_format",
        custom_error_message=f"format should be one of {', '.join(FORMATS)}",
    ),
]
"""One entry of the `export:` list."""


def export_config(entry: dict[str, Any]) -> ExportConfig:
    """An entry, validated by the class of its format."""
    config: ExportConfig = TypeAdapter(AnyExport).validate_python(entry)
    return config
