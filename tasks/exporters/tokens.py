"""What the formats of tokens share: whole documents as token ids, one a row or packed, and where each came from.

A document is tokenized as the windows were (`chunks.py`), so its first tokens are those that were scored; the
end-of-document token follows. Beside each file of tokens lies `….pieces.parquet`, one row for each run of tokens of
one document: where it stands, and all that leads back to the document's source, the run and the configuration.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
from pydantic import Field, field_validator

from ladm.tasks.errors import AccountError, ConfigError, ModelError
from ladm.tasks.exporters.interface import EXPORTED, ExportConfig, Exporter, Part
from ladm.tasks.exporters.packing import Piece, pack
from ladm.tasks.models.resolve import ResolvedModel, resolve_tokenizer
from ladm.tasks.places import expanded
from ladm.tasks.settings import Settings
from ladm.tasks.storage.shard_writer import ShardWriter
from ladm.tasks.tokenizing.chunks import ChunkEncoder, Document, Ids
from ladm.tasks.tokenizing.tokenizer import load_tokenizer, tokenizer_of

PACKED_TOGETHER = 2**22
"""So many tokens are packed at a time: enough that hardly any room is left over, few enough to hold."""

PIECES = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # of the part, from 0
        pa.field("row_start", pa.int64(), nullable=False),  # the run's first token within its row
        pa.field("doc_start", pa.int64(), nullable=False),  # the same token within its document
        pa.field("tokens", pa.int64(), nullable=False),  # with the end-of-document token, where it falls in the run
        *(field for field in EXPORTED if field.name != "text"),
    ]
)
"""One row a run of tokens of one document."""


class PackConfig(Settings):
    """How documents are packed into rows of one length."""

    length: int = Field(ge=2)
    """Tokens in a row. Only documents longer than a row are cut. The end of a row that stays empty is filled with
    `eos`."""


class TokenExport(ExportConfig):
    """What an entry of the `export:` list may say for formats of tokens."""

    eos: int | None = Field(default=None, ge=0)
    """Id of the token that ends every document. Default: the tokenizer's own."""
    pack: PackConfig | None = None
    """Put documents together into rows of one length (best fit). Default: one document a row."""
    # left out of a dump where there is none: what is made of an entry is as it was before there was one
    tokenizer: str | None = Field(default=None, exclude_if=lambda reference: reference is None)
    """The model whose tokenizer makes the tokens: a folder, a hub id, or whatever else `scorer.model` may be. Its
    weights are not needed. Default: the tokenizer of `scorer.model`."""

    @field_validator("tokenizer")
    @classmethod
    def _expand_variables(cls, reference: str | None) -> str | None:
        return reference if reference is None else expanded(reference)


class Row(NamedTuple):
    """One row of an export of tokens.

    Attributes:
        ids: All its token ids, the filling at its end included.
        doc_ids: The document of each run of tokens.
        starts: Each run's first token, counted from its document's first.
        lengths: Tokens of each run; their sum is less than `len(ids)` where the row is filled up.
        sources: Source file and line of each document.
    """

    ids: Ids
    doc_ids: list[str]
    starts: list[int]
    lengths: list[int]
    sources: list[tuple[str, int]]


TokenConfig = TypeVar("TokenConfig", bound=TokenExport)


class TokenExporter(Exporter[TokenConfig]):
    """Makes rows of token ids and their sidecar; a format writes the rows.

    The job's identity is the tokenizer's digest, its environment names the model, and its configuration the `eos`.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self.config.eos is None:
            raise AccountError("the end-of-document token is settled before the job is made")
        self.eos = self.config.eos
        self.tokenizer = tokenizer_of(self.job.environment["model"], self.job.identity[0])
        self.vocabulary = vocabulary_size(self.tokenizer)

    @abstractmethod
    def write_rows(self, part: Part, rows: Iterator[Row]) -> None:
        """Write the format's own files of a part."""

    def dtype(self, wide: npt.DTypeLike) -> np.dtype[Any]:
        """uint16 if it holds every id, else `wide`."""
        return np.dtype(np.uint16 if self.vocabulary <= 2**16 else wide)

    def pieces_name(self, part: Part) -> str:
        """The name of a part's sidecar."""
        return f"{part.stem}.pieces.parquet"

    def write(self, part: Part, tables: Iterator[pa.Table]) -> None:
        """Write the rows of a part, and their sidecar."""
        with self.store.parquet_writer(self.path(self.pieces_name(part)), "", PIECES) as sidecar:
            self.write_rows(part, self._rows(tables, sidecar))

    def finish(self, parts: Sequence[Part]) -> list[str]:
        """Write `tokens.json`: all that a reader must know of the ids."""
        about = {
            "eos_token_id": self.eos,
            "vocab_size": self.vocabulary,
            "dtype": self.file_dtype.name,
            "row_length": self.config.pack.length if self.config.pack else None,
            "tokenizer": self.job.environment["model"],
            "tokenizer_sha256": self.job.identity[0],
        }
        self.store.write_bytes(self.path("tokens.json"), orjson.dumps(about, option=orjson.OPT_INDENT_2))
        return ["tokens.json"]

    @property
    @abstractmethod
    def file_dtype(self) -> np.dtype[Any]:
        """The type of the ids in the files."""

    def _rows(self, tables: Iterator[pa.Table], sidecar: ShardWriter) -> Iterator[Row]:
        number = 0
        for documents, ids in self._groups(tables):
            sources = list(zip(documents["source"].to_pylist(), documents["line"].to_pylist(), strict=True))
            doc_ids = documents["doc_id"].to_pylist()
            rows = self._pieces([len(one) for one in ids])
            sidecar.write(pieces_table(documents, rows, number))
            number += len(rows)
            for pieces in rows:
                parts = [ids[piece.document][piece.start : piece.start + piece.tokens] for piece in pieces]
                if self.config.pack:
                    room = self.config.pack.length - sum(piece.tokens for piece in pieces)
                    parts.append(np.full(room, self.eos, np.int32))
                yield Row(
                    np.concatenate(parts),
                    [doc_ids[piece.document] for piece in pieces],
                    [piece.start for piece in pieces],
                    [piece.tokens for piece in pieces],
                    [sources[piece.document] for piece in pieces],
                )

    def _groups(self, tables: Iterator[pa.Table]) -> Iterator[tuple[pa.Table, list[Ids]]]:
        """Documents, without their text, and their ids; when packing, as many as are packed together."""
        documents: list[pa.Table] = []
        ids: list[Ids] = []
        wanted = max(PACKED_TOGETHER, 64 * self.config.pack.length) if self.config.pack else 0
        for table in tables:
            documents.append(table.drop_columns(["text"]))
            ids += document_ids(table["text"].to_pylist(), self.tokenizer, self.eos)
            if sum(map(len, ids)) >= wanted:
                yield pa.concat_tables(documents), ids
                documents, ids = [], []
        if documents:
            yield pa.concat_tables(documents), ids

    def _pieces(self, lengths: list[int]) -> list[list[Piece]]:
        if self.config.pack:
            return pack(lengths, self.config.pack.length)
        return [[Piece(document, 0, tokens)] for document, tokens in enumerate(lengths)]


def settled(config: ExportConfig, model: ResolvedModel, field: str) -> ExportConfig:
    """The entry with its end-of-document token settled; formats of text have none.

    Args:
        config: An entry of the `export:` list.
        model: Whose tokenizer it is.
        field: The entry's name in the configuration, e.g. `export.1`.

    Raises:
        ConfigError: The tokenizer has no such token, or names none.
    """
    if not isinstance(config, TokenExport):
        return config
    tokenizer = load_tokenizer(model)
    eos = _named_end(model, tokenizer) if config.eos is None else config.eos
    if eos is None:
        raise ConfigError(
            f"{field}.eos: the tokenizer of {model.reference!r} names no end-of-text token; give the id of one"
        )
    if eos >= vocabulary_size(tokenizer):
        raise ConfigError(
            f"{field}.eos: the tokenizer of {model.reference!r} has no token {eos}; its ids end at "
            f"{vocabulary_size(tokenizer) - 1}"
        )
    return config.model_copy(update={"eos": eos})


def tokenizers_of(
    exports: Sequence[ExportConfig], model: ResolvedModel, tell: Callable[[str], None] | None
) -> list[ResolvedModel]:
    """Whose tokenizer each entry of the `export:` list is made with.

    Raises:
        ModelError: An entry names one that cannot be had; the line names the entry.
    """
    found = []
    for number, one in enumerate(exports):
        reference = one.tokenizer if isinstance(one, TokenExport) else None
        try:
            found.append(model if reference is None else resolve_tokenizer(reference, tell))
            if reference is not None:
                load_tokenizer(found[-1])
        except ModelError as error:
            told = str(error).replace("scorer.model:", f"export.{number}.tokenizer:", 1)
            raise ModelError(f"{told}; give a folder that has a tokenizer.json, or a hub id") from None
    return found


def _named_end(model: ResolvedModel, tokenizer: Any) -> int | None:
    """The id of the token that the tokenizer's own files name as the end of a text."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        # A file that is not there, or holds something else, names none.
        with contextlib.suppress(FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
            token = orjson.loads((model.path / name).read_bytes()).get("eos_token")
            id_of = tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token or "")
            if id_of is not None:
                return int(id_of)
    return None


def document_ids(texts: Iterable[str], tokenizer: Any, eos: int) -> list[Ids]:
    """The token ids of whole documents, each ended by `eos`."""
    documents = [Document(text) for text in texts]
    ChunkEncoder(tokenizer).fill((document, chunk) for document in documents for chunk in range(document.chunks))
    end = np.array([eos], np.int32)
    return [
        np.concatenate([*(document.ids_of[chunk] for chunk in range(document.chunks)), end]) for document in documents
    ]


def pieces_table(documents: pa.Table, rows: list[list[Piece]], first_row: int) -> pa.Table:
    """The rows of the sidecar for some rows of tokens."""
    pieces = [piece for row in rows for piece in row]
    starts = [sum(piece.tokens for piece in row[:place]) for row in rows for place in range(len(row))]
    columns = {
        "row": [number for number, row in enumerate(rows, first_row) for _ in row],
        "row_start": starts,
        "doc_start": [piece.start for piece in pieces],
        "tokens": [piece.tokens for piece in pieces],
    }
    table = documents.take([piece.document for piece in pieces])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.int64()))
    return table.select(PIECES.names)


def vocabulary_size(tokenizer: Any) -> int:
    """One more than the highest id that the tokenizer knows."""
    return int(max(tokenizer.get_vocab(with_added_tokens=True).values())) + 1
