"""A curation store: its shards, which are content-addressed Parquet files, and the checks that they are undamaged.

Layout: see docs/concepts/keys.md. A data file is named by its key (`score/ab/abcd….parquet`) and appears whole or not
at all (`files.py`). Two workers that write one key write the same bytes, so the last one wins and nothing is harmed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.tasks import stopping
from ladm.tasks.manifest import Shard
from ladm.tasks.storage.files import Files
from ladm.tasks.storage.shard_writer import ShardWriter

CHECKED_AT_ONCE = 8

_checked: dict[tuple[str, str], str] = {}
"""(file, checksum) → the state in which this process found the file to have it."""


class DamagedFileError(Exception):
    """Files of the store are gone, or hold something else than was written.

    Attributes:
        paths: The files, below the store's root.
    """

    def __init__(self, paths: list[str]) -> None:
        super().__init__(paths)
        self.paths = paths

    def __str__(self) -> str:
        return f"damaged or missing in the store: {', '.join(self.paths)}"


class Store(Files):
    """A curation store at `uri`, e.g. `./ladm-store` or `s3://bucket/prefix`."""

    # -- damage --------------------------------------------------------------------------------------------

    def holds(self, files: Sequence[Shard]) -> bool:
        """Whether every file is there at its recorded size."""
        return all(self.size(file.path) == file.bytes for file in files)

    def check(self, files: Sequence[Shard]) -> None:
        """Read the files through and compare them with their checksums; what this process did before is not repeated.

        A damaged file is left where it is: who has it made again deletes it, and nobody deletes what was just made.

        Raises:
            DamagedFileError: Names all files that are missing, cut off or changed.
        """
        if damaged := self.damaged(files):
            raise DamagedFileError(damaged)

    def damaged(self, files: Sequence[Shard]) -> list[str]:
        """The paths of the files that are missing, cut off or changed; nothing is deleted."""
        suspects = self._unsound(list({file.path: file for file in files}.values()))
        # Looked at once more: while this was reading, another job may have found the same and had it made again.
        return [file.path for file in self._unsound(suspects)]

    def sound_state(self, file: Shard) -> str | None:
        """The state in which this process found a file sound, or was told so (`take_as_sound`)."""
        return _checked.get((self.url(file.path), file.sha256))

    def take_as_sound(self, file: Shard, state: str) -> None:
        """Note that an earlier process found a file sound: while it is in that state, it is not read through again.

        Only for an object store, where the state tells of the content: on a disk, bytes may change and nothing else.
        """
        _checked.setdefault((self.url(file.path), file.sha256), state)

    def _unsound(self, files: list[Shard]) -> list[Shard]:
        """Those of different files that are missing, cut off or changed."""
        states = self.states_of([file.path for file in files])
        unsure = [file for file in files if not self._is_known(file, states[file.path])]
        if len(unsure) < 2:
            return [file for file in unsure if not self._is_sound(file, states[file.path])]
        with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
            sound = list(pool.map(lambda file: self._is_sound(file, states[file.path]), unsure))
        return [file for file, is_sound in zip(unsure, sound, strict=True) if not is_sound]

    def _is_known(self, file: Shard, state: tuple[int, str] | None) -> bool:
        """Whether a file was found sound before, and is in the same state and of its recorded size."""
        return state is not None and state[0] == file.bytes and self.sound_state(file) == state[1]

    def _is_sound(self, file: Shard, state: tuple[int, str] | None) -> bool:
        if state is None or state[0] != file.bytes:
            return False
        if file.sha256:
            try:
                with self.fs.open(self.full(file.path), "rb") as stream:
                    digest = hashlib.sha256()
                    while block := stream.read(2**22):
                        digest.update(block)
            except FileNotFoundError:
                return False
            if digest.hexdigest() != file.sha256:
                return False
        _checked[self.url(file.path), file.sha256] = state[1]
        return True

    # -- Parquet -------------------------------------------------------------------------------------------

    def shard_path(self, stage: str, key: str, suffix: str = "parquet") -> str:
        """Where the data file of a key lives: `<stage>/<key[:2]>/<key>.<suffix>`."""
        return f"{stage}/{key[:2]}/{key}.{suffix}"

    def write_shard(self, stage: str, key: str, table: pa.Table) -> Shard:
        """Write one table as the data file of a key, zstd, with page checksums."""
        with self.shard_writer(stage, key, table.schema) as writer:
            writer.write(table)
        return writer.shard()

    def write_file(self, stage: str, key: str, suffix: str, content: bytes) -> Shard:
        """Write a small file that is no table as the data file of a key."""
        path = self.shard_path(stage, key, suffix)
        self.write_bytes(path, content)
        return Shard(key=key, path=path, bytes=len(content), rows=0, sha256=hashlib.sha256(content).hexdigest())

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
                for batch in parquet.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
                    stopping.check()
                    yield batch

    def doc_ids(self, shards: Sequence[Shard]) -> Iterator[str]:
        """The column `doc_id` of some shards, row by row."""
        for shard in shards:
            for batch in self.shard_batches(shard, rows=65_536, columns=["doc_id"]):
                yield from batch["doc_id"].to_pylist()


def table_of(rows: dict[str, list[Any]], schema: pa.Schema) -> pa.Table:
    """A table from columns of Python values, in the schema's types."""
    return pa.table({name: pa.array(rows[name], type=schema.field(name).type) for name in schema.names}, schema=schema)
