"""Large source files in a run: cut once, read in parts by several jobs, and counted when all of their parts are there.

A file of which one part cannot be used is read again as a whole, by one job, as a small one is: nothing of it is used,
and it is quarantined with the same words. So is one that cannot be cut. What the store has of a whole file is taken
as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ladm.flows.dag.inventory import Inventory
from ladm.flows.dag.lineage import Request
from ladm.flows.dag.requests import Requester
from ladm.flows.dag.rows import Row
from ladm.flows.dag.stages import BY_NAME
from ladm.flows.runs.outcomes import Done
from ladm.tasks.manifest import Manifest, notes_folder
from ladm.tasks.stages import cut, ingest

CUT, READ = BY_NAME[cut.STAGE.name], BY_NAME[ingest.STAGE.name]


@dataclass
class _LargeFile:
    """A file that is read in parts."""

    whole: Request
    """The job that would read all of it."""
    parts: dict[str, Request] = field(default_factory=dict)
    """Key → the job of each part, in their order."""
    read: dict[str, Done] = field(default_factory=dict)
    """Key → what came of it."""


@dataclass
class Settled:
    """What follows from a job that is done."""

    done: list[tuple[Request, Done]] = field(default_factory=list)
    """Jobs that count from now on."""
    due: list[Request] = field(default_factory=list)
    """Jobs that are to be offered now."""
    void: int = 0
    """Jobs that were done and do not count."""


class Parting:
    """The large files of a run that are read in parts."""

    def __init__(self, requests: Requester, inventory: Inventory) -> None:
        self._requests, self._inventory = requests, inventory
        self._files: dict[str, _LargeFile] = {}
        """URI → a file that is not read yet."""

    def of_files(self, row: Row) -> list[Request]:
        """A row's jobs of source files; those that read large files are due only when these are cut."""
        if row.name == CUT.name:
            cuts = {request.source: request for request in self._requests.of_files(row)}
            if cuts:
                for whole in self._requests.of_files(READ):
                    if whole.source in cuts and not whole.job.group and not self._requests.in_store(whole.job):
                        self._files[whole.source] = _LargeFile(whole)
            return [request for uri, request in cuts.items() if uri in self._files]
        requests = self._requests.of_files(row)
        if row.name != READ.name:
            return requests
        return [one for one in requests if one.job.group or one.source not in self._files]

    @property
    def open(self) -> int:
        """Files that are not read yet."""
        return len(self._files)

    @property
    def held(self) -> list[Done]:
        """Parts that are read, of files that are not."""
        return [done for file in self._files.values() for done in file.read.values()]

    def settle(self, request: Request, done: Done) -> Settled:
        """What follows from a job that is done: for one that reads no part of a large file, that it counts."""
        file = self._files.get(request.source) if request.row in (CUT.name, READ.name) else None
        if file is None or request.job.group:
            return Settled([(request, done)])
        if request.row == CUT.name:
            file.parts = self._parts(file, done.manifest)
            if not file.parts:
                del self._files[request.source]
            return Settled([(request, done)], list(file.parts.values()) or [file.whole])
        file.read[done.manifest.key] = done
        if len(file.read) < len(file.parts):
            return Settled()
        del self._files[request.source]
        if any(one.manifest.measures.get("files_quarantined") for one in file.read.values()):
            return Settled(due=[file.whole], void=len(file.parts))
        return Settled([(part, file.read[key]) for key, part in file.parts.items()])

    def _parts(self, file: _LargeFile, cut: Manifest) -> dict[str, Request]:
        found = {}
        job, parts = file.whole.job, cut.parts
        environment = {**job.environment, ingest.PLACES: notes_folder(cut.key)}
        width = len(str(len(parts)))
        for number, part in enumerate(parts, 1):
            label = f"{job.label}, part {number:0{width}} of {len(parts)}"
            of_part = job.replaced(part=part, label=label, environment=environment)
            request = Request(READ.name, file.whole.source, of_part)
            found[request.key] = request
        return found
