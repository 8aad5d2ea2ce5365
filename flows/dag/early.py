"""Work on a large source file while it is still read: the jobs of those of its shards that are written already.

A job that reads a large file leaves a note in the store after each full shard (`finished_shards.py`). While such a job
is under way, the run looks for these notes, and for each shard begins a lineage that is *early*: its jobs are those
that the run will ask for when the file is read, and their results wait in the store. Whether the file can be read to
its end is not known yet. So nothing early is noted anywhere: not in the record of the run, not on the console, not
among the repairs. When the file is read, the run asks for the same jobs, finds what is done, takes over what is under
way, and does the rest. Of a file that turns out unreadable, it asks for nothing; what was made stays in the store, and
no run names it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ladm.flows.dag.inventory import Inventory
from ladm.flows.dag.lineage import Lineage, Request, lineages_of
from ladm.flows.dag.requests import Requester
from ladm.flows.dag.stages import BY_NAME, TABLE
from ladm.flows.dag.under_way import UnderWay
from ladm.flows.dag.waiting import Waiting, share_of_array
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.reading.finished_shards import FinishedShards
from ladm.tasks.stages import ingest
from ladm.tasks.storage.file_systems import io_errors
from ladm.tasks.storage.store import Store

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture

READ = BY_NAME[ingest.STAGE.name]
SECONDS, SECONDS_AWAY = 1.0, 15.0
"""Between two looks for notes: in a store on a disk, and in one elsewhere, where each costs a request."""
MOST_FAILURES = 3
"""After so many early jobs that failed, no more are begun: the run itself will tell what is wrong."""


@dataclass
class _Reading:
    """A job that reads a large file."""

    request: Request
    notes: FinishedShards | None
    """None: the job is done."""
    shards: list[Shard] = field(default_factory=list)
    """Those that are known to be written."""
    begun: int = 0
    """So many of them have a lineage."""


class Early:
    """The early lineages of a run, and their jobs.

    Args:
        store: URI of the run's store.
        requests: Makes the jobs.
        inventory: Where they are looked up.
        announce: Told of each job before it is begun.
    """

    def __init__(
        self, store: str, requests: Requester, inventory: Inventory, announce: Callable[[Request], None]
    ) -> None:
        self._store = Store(store, impatient=True)
        self._requests, self._inventory, self._announce = requests, inventory, announce
        self._pause = SECONDS if self._store.local else SECONDS_AWAY
        self._next_look = 0.0
        self._reading: dict[str, _Reading] = {}
        """Key of a job → what it has read, of files that are not read yet."""
        self._read: set[str] = set()
        """URIs of files that are read, or never will be."""
        self._lineages: list[Lineage] = []
        """Of the files that are not read yet."""
        self._new: list[Lineage] = []
        """Those of them for which something may be due."""
        self._ready: dict[str, Waiting] = {row.name: self._nothing() for row in TABLE}
        self._under_way: dict[str, Request | None] = {}
        """Key of an early job → what the run asked for meanwhile, if it is the same."""
        self._failures = 0
        self._has_followers = any(row.scope == "shard" for row in requests.rows.values())

    def watch(self, request: Request) -> None:
        """Look from now on for the shards of a job that is about to be begun, if it reads a large file."""
        job = request.job
        if request.row != READ.name or not job.source or job.source.uri in self._read or not self._has_followers:
            return
        if ingest.may_fill_a_shard(job.source, job.config["shard_bytes"]):
            if not self._reading:
                self._next_look = time.monotonic() + self._pause
            key = request.key
            self._reading[key] = _Reading(request, FinishedShards(self._store, key))

    @property
    def seconds(self) -> float | None:
        """How long until it is time to look; None while no large file is read."""
        if any(reading.notes for reading in self._reading.values()) and self._failures < MOST_FAILURES:
            return max(0.0, self._next_look - time.monotonic())
        return None

    def look(self) -> None:
        """Look for notes, if it is time to, and get the jobs ready that are due by what was found since."""
        if self.seconds == 0.0:
            for reading in self._reading.values():
                if reading.notes:
                    with contextlib.suppress(*io_errors()):  # the next look finds it
                        for shard in reading.notes.noted_from(len(reading.shards)):
                            reading.shards.append(shard)
                    if len(reading.shards) > 1:  # only then the first one's name is known
                        self._begin(reading)
            self._next_look = time.monotonic() + self._pause
        while self._new:
            self._get_ready(self._requests.due(self._new.pop(0)))

    def look_again(self) -> None:
        """More may be due for any lineage: something that is made once for all of them is there."""
        self._new = list(self._lineages)

    def go_on(self, request: Request, part: Manifest) -> None:
        """A job has read its part of a file that is not read yet: all of its shards are known."""
        if part.measures.get("files_quarantined"):
            self.end(request.source)
        elif request.source not in self._read:
            reading = self._reading.setdefault(part.key, _Reading(request, None))
            reading.notes, reading.shards = None, part.shards
            self._begin(reading)

    def end(self, source: str) -> None:
        """A file is read, or never will be: what waits is dropped, and the run asks for it itself, or nobody does."""
        self._read.add(source)
        if any(reading.request.source == source for reading in self._reading.values()):
            self._reading = {key: one for key, one in self._reading.items() if one.request.source != source}
            self._lineages = [one for one in self._lineages if one.source != source]
            self._new = [one for one in self._new if one.source != source]
            for name, waiting in self._ready.items():
                self._ready[name] = self._nothing()
                for request in waiting:
                    if request.source != source:
                        self._ready[name].add(request)

    def submit(self, under_way: UnderWay) -> None:
        """Hand over what is ready where there is room, later rows first."""
        for row in reversed(TABLE):
            while self._ready[row.name] and self._failures < MOST_FAILURES and under_way.has_room(row):
                request = self._ready[row.name].next()
                if request.key not in self._under_way:
                    self._under_way[request.key] = None
                    under_way.submit(request)

    def takes(self, request: Request) -> bool:
        """Whether a job that the run asks for is under way early; its result is then the run's."""
        key = request.key
        if key not in self._under_way or self._under_way[key] is not None:
            return False
        self._under_way[key] = request
        return True

    def take_in(self, future: PrefectFuture[Any], request: Request) -> Request | None:
        """Keep what an early job gave, and say what the run has asked for meanwhile, if it is the same."""
        asked_for = self._under_way.pop(request.key)
        if not future.state.is_completed():
            self._failures += 1
            return asked_for
        manifest = Manifest.from_dict(future.result())
        self._inventory.add(manifest)
        for key in self._requests.done_with(request.job):
            self._inventory.look_again(key)
        if future.state.name != "Cached":
            self._requests.made_now.add(manifest.key)
        self._take(request, manifest)
        return asked_for

    def _begin(self, reading: _Reading) -> None:
        """An early lineage for each shard that has none."""
        lineages = lineages_of(READ.name, reading.request, reading.shards)[reading.begun :]
        for lineage in lineages:
            lineage.early = True
        reading.begun = len(reading.shards)
        self._lineages += lineages
        self._new += lineages

    def _get_ready(self, requests: Iterable[Request]) -> None:
        for request in requests:
            if found := self._inventory.find(request.key):
                self._take(request, found)
            else:
                self._announce(request)
                self._ready[request.row].add(request)

    def _take(self, request: Request, manifest: Manifest) -> None:
        """What a job made is there for those after it."""
        assert request.lineage is not None
        if request.source not in self._read and request.lineage.take(request.row, manifest.shards):
            self._new.append(request.lineage)

    def _nothing(self) -> Waiting:
        return Waiting(share_of_array())
