"""What can be done about a failure: whether the same run can succeed by itself, or what has to be changed first."""

from __future__ import annotations

import errno
from typing import Literal

from ladm.tasks.errors import SourceChangedError, UserError
from ladm.tasks.passing import can_pass
from ladm.tasks.storage.file_systems import io_errors
from ladm.tasks.storage.store import DamagedFileError

Remedy = Literal["again", "mend", "change", "sources", "quarantine", "drops", "report"]
"""`again`: the same run may succeed. `mend`: it may, once what its surroundings lack is there (room on a disk, a
permission, a file). `change`: a setting that the failure names is wrong. `sources`: too many of them are gone.
`quarantine`: too much was quarantined. `drops`: nothing was left. `report`: a bug."""

LOST_WORKERS = ("KilledWorker", "WorkerCrashedError", "OutOfMemoryError", "NodeDiedError", "RayActorError")
"""What clusters raise, by name, of a task whose workers died too often."""
LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a file system that trying again does not mend, though they may pass."""


def remedy_of(error: object) -> Remedy:
    """What can be done about an error that ended a job or a run."""
    if isinstance(error, SourceChangedError) or type(error).__name__ in LOST_WORKERS:
        return "again"
    if isinstance(error, UserError):
        return "change"
    if isinstance(error, DamagedFileError) or _lasts(error):
        return "mend"
    if can_pass(error) or not isinstance(error, Exception):  # an interruption
        return "again"
    return "mend" if isinstance(error, io_errors()) else "report"


def _lasts(error: object) -> bool:
    return getattr(error, "errno", None) in LASTING or "No space left on device" in str(error)
