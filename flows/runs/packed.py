"""What became of each small source file that was read together with others, for the record of a run.

A job's manifest counts its whole group. How many documents and quarantined records each file had stands in it too; how
many windows, nobody but the shards knows, where each window names its document, and each document its file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ladm.flows.runs.stored_rows import jobs_of
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.storage.store import Store


class PackedFiles:
    """Counts what came of packed files. What the previous run counted of the same jobs is not counted again."""

    def __init__(self, store: Store, previous: Mapping[str, Any] | None) -> None:
        self._store = store
        self._counted: dict[tuple[str, frozenset[str]], dict[str, int]] = {}
        """(key of the reading job, paths of the shards of windows) → windows of each file, by its name."""
        if previous:
            self._take_over(previous)

    def _take_over(self, record: Mapping[str, Any]) -> None:
        windows: dict[str, dict[str, int]] = defaultdict(dict)
        for one in record["sources"]:
            if one.get("group"):
                windows[one["group"]][one.get("name") or one["uri"]] = one["windows"]
        if not windows:
            return
        made: dict[str, set[str]] = defaultdict(set)
        for job in jobs_of(record, counted_stage(record["stages"])):
            made[job["source"]].update(shard["path"] for shard in job["shards"])
        for job in jobs_of(record, "ingest"):
            if job["key"] in windows:
                self._counted[job["key"], frozenset(made[job["source"]])] = windows[job["key"]]

    def of_group(self, manifest: Manifest, shards: Iterable[Shard]) -> dict[str, dict[str, Any]]:
        """URI → what a record says of a packed file beside what it says of every one; for the files of one group.

        `group` is the key of the job that read it. Of a file that was read alone, the record of its job tells all this.

        Args:
            manifest: Of the job that read the files.
            shards: Those that hold a row for each window that counts.
        """
        counted = list(shards)
        key = manifest.key, frozenset(shard.path for shard in counted)
        if key not in self._counted:
            self._counted[key] = self._windows(manifest.shards, counted)
        windows = self._counted[key]
        return {
            file.uri: {
                "group": manifest.key,
                "documents": file.documents,
                "quarantined": file.quarantined,
                "windows": windows.get(file.name, 0),
                "content": file.content,
            }
            for file in manifest.packed
        }

    def _windows(self, documents: Iterable[Shard], windows: list[Shard]) -> dict[str, int]:
        of_document = Counter(self._store.doc_ids(windows))
        found: Counter[str] = Counter()
        for shard in documents if of_document else ():
            for batch in self._store.shard_batches(shard, rows=65_536, columns=["doc_id", "source"]):
                for doc_id, source in zip(batch["doc_id"].to_pylist(), batch["source"].to_pylist(), strict=True):
                    found[source] += of_document[doc_id]
        return dict(found)


def counted_stage(stages: Iterable[str]) -> str:
    """The stage whose windows count: those that were scored; of a run that ends earlier, those that were cut."""
    return "score" if "score" in stages else "tokenize"
