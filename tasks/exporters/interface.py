"""What an exporter is: it writes the parts of an export, one after the other, and what binds them together.

`stages/export.py` decides which documents go into which part, in which order, and which parts are already there; an
exporter only turns the rows of one part into files. Rows come as tables of some megabytes, so an exporter need never
hold a part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import pyarrow as pa
from pydantic import Field

from ladm.tasks.job import Job
from ladm.tasks.schema import DOCUMENTS, RANKING
from ladm.tasks.settings import Settings
from ladm.tasks.storage.store import Store

EXPORTED = pa.schema(
    [
        *(RANKING.field(name) for name in ("doc_id", "domain", "rank", "score", "windows")),
        *(RANKING.field(name) for name in ("doc_tokens", "doc_tokens_exact", "role")),
        pa.field("copy", pa.int64(), nullable=False),  # 0, and 1, 2, … for a document that was selected again
        *(DOCUMENTS.field(name) for name in ("text", "source", "line", "offset", "sha256", "bytes", "meta")),
        # the content key of the export: the record of every run that made or reused it has it, with the configuration
        pa.field("export_key", pa.string(), nullable=False),
    ]
)
"""One row a copy of a selected document, with all that leads back to where it came from."""


class ExportConfig(Settings):
    """What every entry of the `export:` list may say."""

    format: str
    """The name of the format."""
    part_bytes: int = Field(default=256 * 2**20, gt=0, le=2**29)
    """Begin a new part file after this many bytes of text."""
    shuffle: int | None = None
    """Seed of a random order over all domains. Default: domain by domain, the best documents first."""
    validation: float = Field(default=0.0, ge=0, lt=1)
    """Share of the documents in the split `validation`. They are chosen by the hash of their text, so a document stays
    in its split when the corpus grows."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an export, known before anything is written.

    Attributes:
        index: Its place among all parts of the export, from 0.
        split: `train` or `validation`.
        number: Its place within its split, from 0.
        of: How many parts its split has.
        documents: How many documents it holds.
    """

    index: int
    split: str
    number: int
    of: int
    documents: int

    @property
    def stem(self) -> str:
        """The name, without suffix, that Hugging Face's `datasets` tells the split by."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}"


Config = TypeVar("Config", bound=ExportConfig)


class Exporter(ABC, Generic[Config]):
    """Writes one export, in one format, below one folder of the store.

    Attributes:
        entry: What an entry of the `export:` list of this format may say.
        how_to_read: How the format's folder is opened, in the words of the dataset card.
        config: The entry of the `export:` list.
        job: The job, whose environment names the model and the run.
        store: Where the files go; each appears whole.
        folder: The export's own folder; names are below it.
    """

    entry: ClassVar[type[ExportConfig]]
    how_to_read: ClassVar[str]

    def __init__(self, config: Config, job: Job, store: Store, folder: str) -> None:
        self.config = config
        self.job = job
        self.store = store
        self.folder = folder

    def path(self, name: str) -> str:
        """The path in the store of a file of this export."""
        return f"{self.folder}/{name}"

    @abstractmethod
    def names(self, part: Part) -> list[str]:
        """The files of a part; it is complete when all are there."""

    @abstractmethod
    def write(self, part: Part, tables: Iterator[pa.Table]) -> None:
        """Write the files of a part from its rows (`EXPORTED`), in order."""

    def finish(self, parts: Sequence[Part]) -> list[str]:
        """Write what binds all parts together, once they are there, and return its names."""
        return []
