"""The parts of an export that are finished: a note of each, so that one that goes on can tell what it may keep.

A part's note is written after its files, and holds their sizes and checksums as they were when they were written.
An export that finds files where a part should be reads them through and compares them with the note; a part without a
note, or with another content than it says, is made again. So whatever a manifest names was written whole by a job of
this very key, and is still that.

The notes lie beside the export's own record, which makes them its own for `ladm gc`: `records/ab/abcd….json` is the
record, `records/ab/abcd…/train-00003-of-00017.json` a note. An export of one part has none: it cannot be half done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ladm.tasks.errors import AccountError
from ladm.tasks.exporters.interface import Exporter, Part
from ladm.tasks.manifest import Shard, notes_folder
from ladm.tasks.storage.store import Store


class FinishedParts:
    """What of an export is finished.

    Args:
        exporter: Writes the export; its store is the one that the files are written through.
        key: The export's key.
        parts: All parts of the export.
    """

    def __init__(self, exporter: Exporter[Any], key: str, parts: Sequence[Part]) -> None:
        self._exporter = exporter
        self._store: Store = exporter.store
        self._key = key
        self._noted = len(parts) > 1
        self._files: dict[str, Shard] = {}

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that have to be written: those of which not every file is found as it was written."""
        there = {file.path for file in self._store.files(self._exporter.folder)} if self._noted else set[str]()
        return [part for part in parts if not self._is_there(part, there)]

    def note(self, part: Part) -> None:
        """Note a part whose files have all been written, in the store too."""
        files = [self.written(name) for name in self._exporter.names(part)]
        if self._noted:
            content = [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in files]
            self._store.write_bytes(self._note_path(part), orjson.dumps(content))

    def written(self, name: str) -> Shard:
        """What a manifest says of a file: of one that was written by now, or found as it was written.

        Raises:
            AccountError: It was neither.
        """
        path = self._exporter.path(name)
        if path in self._store.written:
            size, checksum = self._store.written[path]
            self._files[path] = Shard(key=self._key, path=path, bytes=size, rows=0, sha256=checksum)
        if path not in self._files:
            raise AccountError(f"{path} belongs to the export but was not written")
        return self._files[path]

    def _is_there(self, part: Part, there: set[str]) -> bool:
        paths = [self._exporter.path(name) for name in self._exporter.names(part)]
        if not there.issuperset(paths):
            return False
        files = self._of_note(part)
        if [file.path for file in files] != paths or not all(file.sha256 for file in files):
            return False
        if self._store.damaged(files):
            return False
        self._files |= {file.path: file for file in files}
        return True

    def _of_note(self, part: Part) -> list[Shard]:
        """What a part's note says; nothing if there is none, or it is damaged."""
        try:
            noted = orjson.loads(self._store.read_bytes(self._note_path(part)))
            return [Shard.from_dict({**one, "key": self._key, "rows": 0}) for one in noted]
        except (FileNotFoundError, ValueError, TypeError):
            return []

    def _note_path(self, part: Part) -> str:
        return f"{notes_folder(self._key)}/{part.stem}.json"
