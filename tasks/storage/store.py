"""The one place that touches files: a folder or an object-store prefix, through fsspec.

Layout: see the README. Data files are content-addressed (`score/ab/abcd….parquet`), written whole or not at all:
on disk under a temporary name and then moved, on object stores by an upload that is abandoned on error. Two
workers that write one key write the same bytes, so the last one wins and nothing is harmed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile

from ladm.tasks.errors import AccountError, ConfigError
from ladm.tasks.manifest import Shard
from ladm.tasks.storage.file_systems import file_system, is_s3

ROW_GROUP_BYTES = 16 * 2**20
REMOVE_AT_ONCE = 1000
CHECKED_AT_ONCE = 8
UNLIKE = ("doc_id", "window_id", "text", "sha256", "rank")
"""Columns in which hardly a value comes twice, as in those of floats: a dictionary of them takes time and space."""

_unfinished: set[Path] = set()
_beginning = threading.RLock()
"""Held while a temporary file comes to be. Not even a moment lies between its being noted and its being there."""
_checked: dict[tuple[str, str], object] = {}
"""(file, checksum) → the state in which this process found the file to have it."""


def remove_unfinished() -> None:
    """Delete the temporary files of writes that are under way; for a process that is about to end at once.

    No other write begins from here on: whoever wants to begin one waits for the end.
    """
    _beginning.acquire()
    for temporary in list(_unfinished):
        temporary.unlink(missing_ok=True)


class DamagedFileError(Exception):
    """Files of the store are gone, or hold something else than was written. What is left of them was deleted.

    Attributes:
        paths: The files, below the store's root.
    """

    def __init__(self, paths: list[str]) -> None:
        super().__init__(paths)
        self.paths = paths

    def __str__(self) -> str:
        return f"damaged or missing in the store: {', '.join(self.paths)}"


class HashingFile(io.RawIOBase):
    """A file being written, in order, that knows the number of bytes and the sha256 of what it got."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        """Write all of the bytes."""
        self._hash.update(data)
        self._file.write(data)
        written = memoryview(data).nbytes
        self.bytes += written
        return written

    def writable(self) -> bool:
        """It is for writing only."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    @property
    def sha256(self) -> str:
        """Of all bytes written so far, in hex."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class StoredFile:
    """A file of the store as a listing shows it."""

    path: str
    bytes: int
    modified: float
    """Seconds since 1970."""
    inode: int | None = None
    """The same for all hard links to one file; None where there are none."""


class Store:
    """A curation store at `uri`, e.g. `./ladm-store` or `s3://bucket/prefix`.

    Raises:
        ConfigError: On an object store, a prefix that fsspec's requests for many objects would take for a pattern.
    """

    def __init__(self, uri: str, impatient: bool = False) -> None:
        self.uri = uri
        self.fs, root = file_system(uri, impatient)
        self.local = isinstance(self.fs, LocalFileSystem)
        self.root = str(Path(root).resolve()) if self.local else root.rstrip("/")
        if not self.local and any(mark in self.root for mark in "*?["):
            raise ConfigError(f"store: {uri!r} holds *, ? or [, which would match other objects; give another prefix")
        self.written: dict[str, tuple[int, str]] = {}
        """path → bytes and sha256 of every file that was written through this object."""

    def full(self, path: str) -> str:
        """The path below the root as the file system names it."""
        return f"{self.root}/{path}"

    def url(self, path: str) -> str:
        """The path below the root as DuckDB and people name it, protocol included."""
        return self.full(path) if self.local else str(self.fs.unstrip_protocol(self.full(path)))

    # -- bytes ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[HashingFile]:
        """Open `path` for writing; it appears whole when the block ends, and not at all if it raises."""
        target = self.full(path)
        if self.local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(f"{target}.{uuid.uuid4().hex}.tmp")
            try:
                with _beginning:
                    _unfinished.add(temporary)
                    opened = temporary.open("wb")
                with opened as file:
                    yield (hashing := HashingFile(file))
                temporary.replace(target)
                self.written[path] = hashing.bytes, hashing.sha256
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            finally:
                _unfinished.discard(temporary)
            return
        file = self.fs.open(target, "wb")
        try:
            yield (hashing := HashingFile(file))
        except BaseException:
            # Closing would complete the upload: an object store must never show half a file.
            with contextlib.suppress(Exception):
                file.discard()
            if isinstance(file, AbstractBufferedFile):
                file.closed = True
            raise
        file.close()
        self.written[path] = hashing.bytes, hashing.sha256

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a small file whole."""
        with self.writing(path) as file:
            file.write(content)

    def read_bytes(self, path: str, end: int | None = None) -> bytes:
        """The content of a file, all or the first `end` bytes; `FileNotFoundError` if there is none."""
        return cast(bytes, self.fs.cat_file(self.full(path), end=end))

    def size(self, path: str) -> int | None:
        """Bytes of a file, or None if there is no such file."""
        if self.local:  # fsspec's info() costs ten times a stat
            try:
                status = Path(self.full(path)).stat()
            except OSError:
                return None
            return status.st_size
        try:
            return int(self.fs.info(self.full(path))["size"])
        except FileNotFoundError:
            return None

    def holds(self, files: Sequence[Shard]) -> bool:
        """Whether every file is there at its recorded size."""
        return all(self.size(file.path) == file.bytes for file in files)

    def check(self, files: Sequence[Shard]) -> None:
        """Read the files through and compare them with their checksums; what this process did before is not repeated.

        A damaged file is deleted: with it gone, the record that vouches for it no longer counts (`holds`).

        Raises:
            DamagedFileError: Names all files that are missing, cut off or changed.
        """
        different = {file.path: file for file in files}.values()
        if len(different) == 1:
            sound = [self._is_sound(file) for file in different]
        else:
            with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
                sound = list(pool.map(self._is_sound, different))
        suspects = [file for file, is_sound in zip(different, sound, strict=True) if not is_sound]
        # Looked at once more: while this was reading, another job may have found the same and had it made again.
        damaged = [file.path for file in suspects if not self._is_sound(file)]
        if damaged:
            for path in damaged:
                self.remove(path)
            raise DamagedFileError(damaged)

    def _is_sound(self, file: Shard) -> bool:
        url = self.url(file.path)
        try:
            state = self._state(file.path)
            if self.size(file.path) != file.bytes:
                return False
            if _checked.get((url, file.sha256)) == state:
                return True
            if file.sha256:
                with self.fs.open(self.full(file.path), "rb") as stream:
                    digest = hashlib.sha256()
                    while block := stream.read(2**22):
                        digest.update(block)
                if digest.hexdigest() != file.sha256:
                    return False
        except FileNotFoundError:
            return False
        _checked[url, file.sha256] = state
        return True

    def _state(self, path: str) -> object:
        """What changes whenever a file is written again."""
        if self.local:
            status = Path(self.full(path)).stat()
            return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        info = self.fs.info(self.full(path))
        return info["size"], info.get("ETag"), info.get("LastModified"), info.get("created")

    def names(self, path: str) -> list[str]:
        """Names of the entries directly below `path`, sorted; empty if there is no such folder."""
        try:
            entries = self.fs.ls(self.full(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def files(self, folder: str) -> list[StoredFile]:
        """Every file below a folder, at any depth, sorted by path; empty if there is no such folder."""
        listing = self._walk_local(folder) if self.local else self._walk_remote(folder)
        return sorted(listing, key=lambda file: file.path)

    def _walk_local(self, folder: str) -> Iterator[StoredFile]:
        for parent, _, names in os.walk(self.full(folder)):
            for name in names:
                path = Path(parent) / name
                with contextlib.suppress(FileNotFoundError):  # moved to its final name meanwhile
                    status = path.lstat()
                    relative = path.relative_to(self.root).as_posix()
                    yield StoredFile(relative, status.st_size, status.st_mtime, status.st_ino)

    def _walk_remote(self, folder: str) -> Iterator[StoredFile]:
        try:
            found = self.fs.find(self.full(folder), detail=True)
        except FileNotFoundError:
            return
        for name, info in found.items():
            if info["type"] == "directory" or name.endswith("/"):
                continue
            modified = info.get("LastModified") or info.get("created") or info.get("mtime")
            if isinstance(modified, datetime):
                modified = modified.timestamp()
            relative = name.removeprefix(self.root).lstrip("/")
            yield StoredFile(relative, int(info["size"]), float(modified or time.time()))

    def remove(self, path: str) -> None:
        """Delete a file; no error if there is none."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.full(path))

    def remove_all(self, paths: Sequence[str]) -> None:
        """Delete files in the order given, many a request where the file system can."""
        if not is_s3(self.uri):
            for path in paths:
                self.remove(path)
            return
        for start in range(0, len(paths), REMOVE_AT_ONCE):
            self.fs.rm([self.full(path) for path in paths[start : start + REMOVE_AT_ONCE]])

    def remove_empty_folders(self, folder: str) -> None:
        """Delete a folder that holds no file, and the empty ones in it; object stores have none."""
        if not self.local:
            return
        for parent, _, _ in os.walk(self.full(folder), topdown=False):
            with contextlib.suppress(OSError):  # not empty, or gone
                Path(parent).rmdir()

    def publish(self, path: str, to: str) -> None:
        """Make the file `path` also appear as `to`: a hard link on disk, a server-side copy elsewhere."""
        if not self.local:
            self.fs.copy(self.full(path), self.full(to))
            return
        source, target = Path(self.full(path)), Path(self.full(to))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            target.unlink()
            os.link(source, target)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)

    # -- Parquet -------------------------------------------------------------------------------------------

    def shard_path(self, stage: str, key: str, suffix: str = "parquet") -> str:
        """Where the data file of a key lives: `<stage>/<key[:2]>/<key>.<suffix>`."""
        return f"{stage}/{key[:2]}/{key}.{suffix}"

    def write_shard(self, stage: str, key: str, table: pa.Table) -> Shard:
        """Write one table as the data file of a key, zstd, with page checksums."""
        with self.shard_writer(stage, key, table.schema) as writer:
            writer.write(table)
        return writer.shard()

    def kept(self, shard: Shard) -> list[Shard]:
        """The shard, for a manifest; none if it has no row, and then its file is deleted: no stage need follow."""
        if shard.rows:
            return [shard]
        self.remove(shard.path)
        return []

    @contextlib.contextmanager
    def shard_writer(self, stage: str, key: str, schema: pa.Schema) -> Iterator[ShardWriter]:
        """Write the data file of a key batch by batch; it appears when the block ends."""
        with self.parquet_writer(self.shard_path(stage, key), key, schema) as writer:
            yield writer

    @contextlib.contextmanager
    def parquet_writer(self, path: str, key: str, schema: pa.Schema) -> Iterator[ShardWriter]:
        """Write a Parquet file at any path batch by batch; it appears when the block ends."""
        with self.writing(path) as file:
            writer = ShardWriter(key, path, file, schema)
            try:
                yield writer
            finally:
                writer.finish()  # also of a file about to be thrown away: its writer must not outlive it

    def read_shard(self, shard: Shard) -> pa.Table:
        """The whole table of a shard."""
        with self.fs.open(self.full(shard.path), "rb") as file:
            return pq.read_table(file)

    def shard_batches(self, shard: Shard, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The shard's rows in batches of at most so many, of one row group each; all columns, or those named.

        A batch from several row groups could hold the whole shard, where the rows are long.
        """
        with self.fs.open(self.full(shard.path), "rb") as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(parquet.num_row_groups):
                yield from parquet.iter_batches(batch_size=rows, row_groups=[group], columns=columns)

    def doc_ids(self, shards: Sequence[Shard]) -> Iterator[str]:
        """The column `doc_id` of some shards, row by row."""
        for shard in shards:
            for batch in self.shard_batches(shard, rows=65_536, columns=["doc_id"]):
                yield from batch["doc_id"].to_pylist()


class ShardWriter:
    """Writes one Parquet file batch by batch and knows its rows and bytes when finished."""

    def __init__(self, key: str, path: str, file: HashingFile, schema: pa.Schema) -> None:
        self.key = key
        self.path = path
        self.rows = 0
        self.bytes = 0
        self.sha256 = ""
        self._file = file
        self._schema = schema
        dictionary = [_leaf(field) for field in schema if field.name not in UNLIKE and not _is_float(field)]
        self._writer = pq.ParquetWriter(
            file, schema, compression="zstd", write_page_checksum=True, use_dictionary=dictionary
        )

    def write(self, table: pa.Table) -> None:
        """Append rows, in row groups of some 16 MiB so that readers need not hold the whole file."""
        if not table.num_rows:
            return
        rows_a_group = max(1, int(table.num_rows * ROW_GROUP_BYTES / max(1, table.nbytes)))
        self._writer.write_table(table.cast(self._schema), row_group_size=rows_a_group)
        self.rows += table.num_rows

    def finish(self) -> None:
        """Write the footer and note the size and the checksum."""
        self._writer.close()
        self.bytes = self._file.tell()
        self.sha256 = self._file.sha256

    def shard(self) -> Shard:
        """What a manifest says of the finished file."""
        if not self.bytes:
            raise AccountError("a shard is described only after it is finished")
        return Shard(key=self.key, path=self.path, bytes=self.bytes, rows=self.rows, sha256=self.sha256)


def _is_float(field: pa.Field) -> bool:
    return pa.types.is_floating(field.type) or (pa.types.is_list(field.type) and _is_float(field.type.value_field))


def _leaf(field: pa.Field) -> str:
    """The name by which Parquet knows a column."""
    is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
    return f"{field.name}.list.element" if is_list else str(field.name)


def table_of(rows: dict[str, list[Any]], schema: pa.Schema) -> pa.Table:
    """A table from columns of Python values, in the schema's types."""
    return pa.table({name: pa.array(rows[name], type=schema.field(name).type) for name in schema.names}, schema=schema)
