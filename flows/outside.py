"""What a command that could not go on says of it, and its exit code: one line for all that is no bug of ladm's.

What the user can mend, and what the machine, its disks or a Prefect server did, are told in one line. Anything else is
a bug, and shows where it is.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

from ladm.flows.commands import DONE, FAILED, REFUSED
from ladm.flows.streams import OUTPUT
from ladm.tasks.errors import ConfigError, UserError
from ladm.tasks.printable import printable
from ladm.tasks.redact import one_line

_ROOM = "make room there, or name another place (--store, LADM_CACHE, TMPDIR)"
_RIGHTS = "give the user who runs ladm the right to it, or name another place (--store, LADM_CACHE, TMPDIR)"
_LIMIT = "raise this process's limits (ulimit -a)"
_DISK = "look at the disk or the network that it is on, and run the same command again"
FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN), _LIMIT),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT, errno.EHOSTUNREACH), _DISK),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP), "name another file or folder"),
}
"""What can be done about an error of the machine."""


def check_here() -> None:
    """Refuse a working folder that is gone: paths mean nothing there.

    Raises:
        ConfigError: It was deleted, or may not be entered.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError(f"the working folder is gone ({error.strerror}); cd to another") from None


def told(error: BaseException) -> int:
    """Say on stderr, in one line, why a command ended, and return its exit code.

    Raises:
        BaseException: The error itself, where it is a bug.
    """
    if isinstance(error, BrokenPipeError):  # `ladm sql … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    if isinstance(error, KeyboardInterrupt):
        code, line = 128 + signal.SIGINT, "interrupted"
    elif isinstance(error, UserError):
        code, line = REFUSED, str(error)
    elif found := why_outside(error):
        code, line = FAILED, found
    else:
        raise error
    print(f"ladm: {printable(one_line(line), 4000)}", file=sys.stderr)
    return code


def why_outside(error: BaseException) -> str | None:
    """What went wrong outside of ladm, and the fix; None of an error that is a bug."""
    if isinstance(error, MemoryError):
        return f"out of memory; {_LIMIT}, or give the machine more"
    if isinstance(error, OSError) and error.errno in FIXES:
        if error.filename == OUTPUT:
            return f"{OUTPUT}: {error.strerror or error}; send it to another place"
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}; {FIXES[error.errno]}"
    if isinstance(error, UnicodeEncodeError) and error.encoding == "ascii":
        name = printable(ascii(error.object[:200]))
        return f"the locale knows ASCII alone, and {name} is more; unset PYTHONUTF8, or set LC_ALL=C.UTF-8"
    if _is_of_a_server(error):
        reason = str(error).split(" For more information check:")[0]
        return (
            f"Prefect's server failed ({reason}); if PREFECT_API_URL is set, see to the server there, or else to the "
            "room in the cache (LADM_CACHE), whose prefect-server.log says more; then run the same command again"
        )
    return None


def _is_of_a_server(error: BaseException) -> bool:
    """Whether Prefect's client raised an error because its server did not answer as it should."""
    httpx = sys.modules.get("httpx")
    if httpx and isinstance(error, httpx.HTTPError):
        return True
    return isinstance(error, RuntimeError) and str(error).startswith("Failed to reach API")
