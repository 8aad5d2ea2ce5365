"""Making damaged files of the store again within the run that finds them: who made which file, and who waits for it.

A job that finds an input damaged (`Store.check`) does nothing. The run looks at the file itself, as another job may
have had it made again meanwhile, and deletes it: only the run does, so that nobody deletes what was just made. The job
that made the file is offered once more, misses its record, and does its work again; then the job that found the damage
is offered again. That may go back over several stages, to the source file itself.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ladm.flows.dag.lineage import Request
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.storage.store import Store

MOST_TRIES = 2
"""Times that one file is made again in a run: a disk that damages everything must not keep a run going for ever."""


@dataclass
class _Waiting:
    """A job that can go on when every one of `keys` is made again."""

    keys: set[str]
    request: Request


class _Made(NamedTuple):
    """A file of the store, and the job that made it."""

    key: str
    request: Request
    file: Shard


class Repairs:
    """What one run knows of the files its jobs vouch for, and of those that had to be made again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._done: list[tuple[Manifest, Request]] = []
        """Finished jobs whose files are not in `_found`."""
        self._found: dict[str, _Made] = {}
        self._tries: Counter[str] = Counter()
        """Path → times that it was made again."""
        self._late: Counter[str] = Counter()
        """Key of a job → times that all it found damaged was sound by then."""
        self._under_way: set[str] = set()
        self._waiting: list[_Waiting] = []

    @property
    def _made(self) -> dict[str, _Made]:
        """Path → who made the file. It is filled when somebody asks: mostly nothing is damaged, and files are many."""
        for manifest, request in self._done:
            self._found.update((file.path, _Made(manifest.key, request, file)) for file in manifest.all_files())
        self._done.clear()
        return self._found

    def is_under_way(self, key: str) -> bool:
        """Whether the job of this key was offered again and has not finished since."""
        return key in self._under_way

    def made_meanwhile(self, paths: Sequence[str], waiting: Request) -> Request | None:
        """The job that found the damage, to be offered as it is now, if another job had all of it made again already.

        Such a finding is no new damage, and does not count as a try. None if there still is something to make, or if
        the job says so again and again: where it works, the files may look otherwise than here.
        """
        if self._damaged(paths) or self._late[waiting.key] >= MOST_TRIES:
            return None
        self._late[waiting.key] += 1
        return self._with_what_was_made(waiting)

    def order(self, paths: Sequence[str], waiting: Request | None = None) -> list[Request] | None:
        """Delete damaged files, and say which jobs have to be done again for their sake.

        Args:
            paths: The files that were found damaged. Those that are sound by now are left out, unless all are.
            waiting: The job that found the damage, to be done afterwards.

        Returns:
            The jobs to offer: none of them twice, if several jobs find the same damage. None if it cannot be mended:
            a file was made again too often already, or by no job of this run.
        """
        made = self._made
        paths = self._damaged(paths) or paths
        for path in paths:
            if path not in made or made[path].key not in self._under_way:
                self._store.remove(path)
        if any(path not in made or self._tries[path] >= MOST_TRIES for path in paths):
            return None
        makers = {made[path].key: made[path].request for path in paths}
        if waiting:
            self._waiting.append(_Waiting(set(makers), waiting))
        new = {key: request for key, request in makers.items() if key not in self._under_way}
        self._tries.update(path for path in paths if made[path].key in new)
        self._under_way.update(new)
        return list(new.values())

    def _damaged(self, paths: Sequence[str]) -> list[str]:
        """Those of the files that are not sound now, or are being made, or that nobody of this run has made."""
        made = self._made
        known = [path for path in paths if path in made and made[path].key not in self._under_way]
        sound = set(known).difference(self._store.damaged([made[path].file for path in known]))
        return [path for path in paths if path not in sound]

    def finished(self, manifest: Manifest, request: Request) -> list[Request]:
        """Note the files of a finished job, and say which jobs waited for it and for nothing else any more."""
        self._done.append((manifest, request))
        if manifest.key not in self._under_way:
            return []
        self._under_way.discard(manifest.key)
        for waiting in self._waiting:
            waiting.keys.discard(manifest.key)
        ready = [waiting.request for waiting in self._waiting if not waiting.keys]
        self._waiting = [waiting for waiting in self._waiting if waiting.keys]
        return [self._with_what_was_made(request) for request in ready]

    def _with_what_was_made(self, request: Request) -> Request:
        """The job with its inputs as they are now: made again elsewhere, a file may have other bytes."""
        made = self._made
        inputs = {
            role: [made[shard.path].file if shard.path in made else shard for shard in shards]
            for role, shards in request.job.inputs.items()
        }
        return dataclasses.replace(request, job=request.job.replaced(inputs=inputs))
