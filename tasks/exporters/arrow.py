"""`format: datasets`: the folder that `datasets.load_from_disk` opens, Arrow streams that it maps into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import orjson
import pyarrow as pa

from ladm.tasks.exporters.interface import EXPORTED, ExportConfig, Exporter, Part
from ladm.tasks.manifest import content_key

SCHEMA = pa.schema([pa.field(field.name, field.type) for field in EXPORTED])
"""`EXPORTED` as `datasets` makes schemas of its features: everything nullable."""


class DatasetsExport(ExportConfig):
    """An entry of the `export:` list: a saved `DatasetDict`."""

    format: Literal["datasets"] = "datasets"
    """The name of the format."""


class DatasetsExporter(Exporter[DatasetsExport]):
    """Writes the folder that `DatasetDict.save_to_disk` writes."""

    entry = DatasetsExport
    how_to_read = "`datasets.load_from_disk(folder)`"

    def names(self, part: Part) -> list[str]:
        """One Arrow stream in the split's folder."""
        return [f"{part.split}/data-{part.number:05d}-of-{part.of:05d}.arrow"]

    def write(self, part: Part, tables: Iterator[pa.Table]) -> None:
        """Write the rows as an Arrow stream."""
        (name,) = self.names(part)
        with self.store.writing(self.path(name)) as file, pa.ipc.new_stream(file, SCHEMA) as stream:
            for table in tables:
                stream.write_table(table.cast(SCHEMA))

    def finish(self, parts: Sequence[Part]) -> list[str]:
        """Write the list of splits, and of each its features and its list of files."""
        splits = list(dict.fromkeys(part.split for part in parts))
        written = [self._json("dataset_dict.json", {"splits": splits})]
        for split in splits:
            files = [self.names(part)[0].split("/")[1] for part in parts if part.split == split]
            features = {field.name: {"dtype": _value_type(field.type), "_type": "Value"} for field in SCHEMA}
            state: dict[str, Any] = {
                "_data_files": [{"filename": name} for name in files],
                "_fingerprint": content_key(self.folder, split)[:16],  # `datasets` caches by it
                "_format_columns": None,
                "_format_kwargs": {},
                "_format_type": None,
                "_output_all_columns": False,
                "_split": split,
            }
            written.append(self._json(f"{split}/dataset_info.json", {"features": features}))
            written.append(self._json(f"{split}/state.json", state))
        return written

    def _json(self, name: str, content: dict[str, Any]) -> str:
        self.store.write_bytes(self.path(name), orjson.dumps(content, option=orjson.OPT_INDENT_2))
        return name


def _value_type(kind: pa.DataType) -> str:
    """A type as `datasets.Value` names it."""
    return {"double": "float64"}.get(str(kind), str(kind))
