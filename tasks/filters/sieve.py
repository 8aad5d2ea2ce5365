"""Puts documents through filters, and keeps the account of those that do not come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ladm.tasks.filters.loading import Filter, in_words, lacks
from ladm.tasks.job import QuarantineEntry
from ladm.tasks.manifest import Shard, content_key
from ladm.tasks.printable import printable
from ladm.tasks.schema import FILTERED
from ladm.tasks.storage.store import Store, table_of

LONGEST_REASON = 100
MOST_REASONS = 100
"""Reasons of one job that are counted each by itself: a filter may give every document another one."""
OTHER_REASONS = "other reasons"
COLUMNS = ["doc_id", "domain", "text", "source", "line", "meta"]
"""What is looked at of a document."""


class Sieve:
    """Filters, and what was found of the documents that went through them.

    Attributes:
        dropped: Reason → documents.
        quarantine: Documents on which a filter raised an error, or answered neither yes nor no.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        self.dropped: dict[str, int] = {}
        self.quarantine: list[QuarantineEntry] = []
        self._filters = filters
        self._listed: dict[str, list[Any]] = {name: [] for name in FILTERED.names}

    def keep(self, batch: pa.RecordBatch) -> pa.Array:
        """Which documents of a batch come through, as a mask; it has the columns `COLUMNS`."""
        kept = np.fromiter(map(self._comes_through, batch.select(COLUMNS).to_pylist()), bool, batch.num_rows)
        return pa.array(kept)

    def write_list(self, store: Store, stage: str, key: str) -> list[Shard]:
        """Write down every document that was dropped, and why; for a job's `files`."""
        if not self._listed["doc_id"]:
            return []
        return [store.write_shard(stage, content_key("filtered documents", key), table_of(self._listed, FILTERED))]

    def _comes_through(self, document: dict[str, Any]) -> bool:
        for one in self._filters:
            try:
                reason = _why_not(one.check(document["doc_id"], document["text"], document["meta"]))
            except MemoryError:
                raise
            except ImportError as error:  # no document's fault
                raise lacks(one, error) from None
            except Exception as error:
                self._set_aside(document, f"filter {one.name}: {in_words(error)}")
                return False
            if reason is not None:
                self._drop(document, one.name, reason)
                return False
        return True

    def _set_aside(self, document: dict[str, Any], reason: str) -> None:
        self.quarantine.append(
            QuarantineEntry(
                source=document["source"],
                line=document["line"],
                reason=reason,
                excerpt=printable(document["text"]),
                doc_id=document["doc_id"],
            )
        )

    def _drop(self, document: dict[str, Any], name: str, reason: str) -> None:
        told = f"{name}: {reason}" if reason else name
        counted = told if told in self.dropped or len(self.dropped) < MOST_REASONS else f"{name}: {OTHER_REASONS}"
        self.dropped[counted] = self.dropped.get(counted, 0) + 1
        for column, values in self._listed.items():
            values.append(told if column == "reason" else document[column])


def _why_not(answer: object) -> str | None:
    """Why a filter drops a document, possibly without a word; None if it does not.

    Raises:
        TypeError: The answer is neither `bool` nor `(bool, reason)`.
    """
    stays, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
    if not isinstance(stays, bool | np.bool_):
        raise TypeError(f"answered {printable(repr(answer), 60)}, neither True or False nor one of them with a reason")
    if stays:
        return None
    words = " ".join(str(reason).split()) if reason is not None else ""
    return printable(words.replace('"', "'"), LONGEST_REASON)
