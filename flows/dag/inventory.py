"""What a store has of jobs that are done: looked through once, before a run, and asked for every job.

One listing of the store's folders says which records and data files are there. The manifests in the records are in the
*index*, `records/index.parquet`, too, so that they need not be read one by one. The records stay the truth: a line of
the index counts only while its record is there in the very state in which it was read, and a record that has no such
line is read itself. So a missing, stale or damaged index costs time and nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.tasks.errors import UserError
from ladm.tasks.manifest import Manifest, Shard, record_path
from ladm.tasks.sealing import manifest_of, unsealed
from ladm.tasks.storage.file_systems import io_errors
from ladm.tasks.storage.store import Store

INDEX = "records/index.parquet"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("state", pa.string()),
        ("manifest", pa.large_binary()),
        ("sound", pa.list_(pa.string())),
    ]
)
"""`sound`: the states in which the manifest's files were found sound, in their order; empty where that is not known."""
UNLISTED = -1
READ_AT_ONCE = 500
"""Records that are asked of an object store together."""


class Inventory:
    """The jobs that a store has done."""

    def __init__(self, store: Store, folders: Iterable[str]) -> None:
        """Look through a store.

        Args:
            store: The store.
            folders: Those that hold what manifests vouch for, and the quarantines.
        """
        self._store = store
        self._lines: dict[str, int] = {}
        """Key of each record → its line of the index, or `UNLISTED`."""
        self._sizes: dict[str, int] = {}
        for folder in dict.fromkeys(folders):
            self._sizes.update((path, size) for path, size, _ in store.states(folder))
        self._made: dict[str, Manifest] = {}
        """Jobs that were done, or whose record was read, since."""
        self._unread: set[str] = set()
        """Jobs that were done since, and of which only the record tells."""
        self._unsure: dict[str, Manifest] = {}
        """Jobs of the index whose files are checked at the end of a run, and of which it does not tell the states."""
        self._index = SCHEMA.empty_table()
        self._wants_writing = False
        if states := _states(store):
            self._index = self._read_index()
            self._find_lines(states)
            if not store.local:
                self._read_the_others()

    def find(self, key: str) -> Manifest | None:
        """The manifest of a job, if the store has its record, and every file that it vouches for at its size."""
        if (manifest := self._made.get(key)) is not None:
            return manifest
        if key in self._unread:
            return self._read(key, listed=False)
        if key not in self._lines:
            return None
        if (manifest := self._of_index(key)) is None:
            return self._read(key, listed=True)
        return manifest if self._holds(manifest) else None

    def _of_index(self, key: str) -> Manifest | None:
        """What the index has of a job; None if nothing that counts."""
        if (line := self._lines[key]) == UNLISTED:
            return None
        manifest = _manifest(self._index["manifest"][line].as_py())
        if manifest is None or manifest.key != key:
            return None
        self._take_as_sound(manifest, self._index["sound"][line].as_py())
        return manifest

    def _checked_files(self, manifest: Manifest) -> list[Shard]:
        """The files of a job that a run checks at its end, whoever reads the others, and of which the index tells."""
        if self._store.local:
            return []
        return [*manifest.files, *([manifest.quarantine] if manifest.quarantine else [])]

    def _take_as_sound(self, manifest: Manifest, states: list[str]) -> None:
        if not (checked := self._checked_files(manifest)):
            return
        told = dict(zip(manifest.all_files(), states, strict=False))
        for file, state in told.items():
            if state:
                self._store.take_as_sound(file, state)
        if not all(map(told.get, checked)):
            self._unsure[manifest.key] = manifest

    def _sound(self, manifest: Manifest) -> list[str]:
        if not self._checked_files(manifest):
            return []
        return [self._store.sound_state(file) or "" for file in manifest.all_files()]

    def _is_sure(self, manifest: Manifest) -> bool:
        return all(map(self._store.sound_state, self._checked_files(manifest)))

    def add(self, manifest: Manifest) -> None:
        """Note a job that was done just now."""
        self._made[manifest.key] = manifest
        self._wants_writing = True

    def look_again(self, key: str) -> None:
        """Note that a job was done just now in another one's pass, and that its record is there to be read."""
        self._unread.add(key)

    def forget(self, key: str) -> None:
        """Note that what was made of a job is damaged."""
        self._made.pop(key, None)
        self._lines.pop(key, None)

    def write_index(self) -> None:
        """Write the index anew, if anything was done or found that it lacks."""
        now_sure = {key: one for key, one in self._unsure.items() if self._is_listed(key) and self._is_sure(one)}
        if not (self._wants_writing or now_sure):
            return
        self._made = {**now_sure, **self._made}
        states = _states(self._store)
        before = self._index["state"]
        kept = [
            line
            for key, line in self._lines.items()
            if line != UNLISTED and key not in self._made and states.get(key) == before[line].as_py()
        ]
        new = [(key, states[key], manifest) for key, manifest in self._made.items() if states.get(key)]
        made = pa.table(
            {
                "key": [key for key, _, _ in new],
                "state": [state for _, state, _ in new],
                "manifest": [manifest.as_json() for _, _, manifest in new],
                "sound": [self._sound(manifest) for _, _, manifest in new],
            },
            schema=SCHEMA,
        )
        table = pa.concat_tables([self._index.take(pa.array(kept, pa.int64())), made]).sort_by("key")
        with self._store.writing(INDEX) as file:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)

    def _find_lines(self, states: dict[str, str]) -> None:
        """Find the lines of the index that count: those of records that are in the state in which they were read."""
        found = dict.fromkeys(states, UNLISTED)
        line = 0
        for batch in self._index.select(["key", "state"]).to_batches(READ_AT_ONCE):
            for key, state in zip(batch["key"].to_pylist(), batch["state"].to_pylist(), strict=True):
                if state and states.get(key) == state:
                    found[key] = line
                line += 1
        self._lines = found
        self._wants_writing = line != sum(one != UNLISTED for one in found.values())

    def _is_listed(self, key: str) -> bool:
        return self._lines.get(key, UNLISTED) != UNLISTED

    def _read_index(self) -> pa.Table:
        try:
            content = self._store.read_bytes(INDEX)
            table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
            if "sound" not in table.column_names:  # as it was before states were kept
                table = table.append_column("sound", pa.array([[]] * table.num_rows, SCHEMA.field("sound").type))
            table = table.select(SCHEMA.names).cast(SCHEMA)
            return table.drop_null() if any(column.null_count for column in table.columns) else table
        except io_errors(ValueError, KeyError, pa.ArrowException):
            return SCHEMA.empty_table()

    def _read(self, key: str, *, listed: bool) -> Manifest | None:
        """The manifest of a record that is read itself; what is not whole does not count."""
        try:
            manifest = manifest_of(unsealed(self._store.read_bytes(record_path(key))))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return self._taken(key, manifest, listed=listed)

    def _taken(self, key: str, manifest: Manifest, *, listed: bool) -> Manifest | None:
        there = self._holds(manifest) if listed else self._store.holds(manifest.all_files())
        if manifest.key != key or not there:
            return None
        self.add(manifest)
        return manifest

    def _holds(self, manifest: Manifest) -> bool:
        return not manifest.lacks_checksums() and all(
            self._sizes.get(file.path) == file.bytes for file in manifest.all_files()
        )

    def _read_the_others(self) -> None:
        """Read the records of an object store that the index lacks, many at once: one by one takes much longer."""
        missing = [key for key, line in self._lines.items() if line == UNLISTED]
        for start in range(0, len(missing), READ_AT_ONCE):
            keys = missing[start : start + READ_AT_ONCE]
            for key, content in zip(keys, self._store.read_many([record_path(key) for key in keys]), strict=True):
                try:
                    self._taken(key, manifest_of(unsealed(content or b"")), listed=True)
                except (ValueError, KeyError, TypeError):
                    continue


def may_have_everything(uri: str) -> bool:
    """Whether a store may have all that a run asks for: at least, it has an index."""
    try:
        return Store(uri, impatient=True).size(INDEX) is not None
    except io_errors(ValueError, ImportError, UserError):
        return False  # and what is wrong with it, others tell


def _states(store: Store) -> dict[str, str]:
    """Key → the state of its record, for all records that are there."""
    found: dict[str, str] = {}
    for path, size, state in store.states("records"):
        parts = path.split("/")
        if len(parts) == 3 and parts[2].endswith(".json"):
            found[parts[2].removesuffix(".json")] = f"{size} {state}" if state else ""
    return found


def _manifest(content: bytes) -> Manifest | None:
    try:
        return Manifest.from_json(content).compact()
    except ValueError:
        return None
