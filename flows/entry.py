"""The `ladm` program: the command line, and what Ctrl-C does before it is loaded and after it is done.

Loading takes some tenths of a second, in which Python would answer Ctrl-C with a traceback. So this module loads
nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended: 128 and the signal's number."""


def main() -> int:
    """Run one command and return its exit code."""
    waits_for_it = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # `nohup` has it ignored
    if waits_for_it:
        signal.signal(signal.SIGINT, _leave)
    from ladm.flows.cli import main as command  # noqa: PLC0415

    if waits_for_it:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on the command tells of it
    code = command()
    if waits_for_it:
        signal.signal(signal.SIGINT, _leave)
    return code


def _leave(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):  # stderr may be closed
        os.write(2, b"ladm: interrupted\n")
    os._exit(INTERRUPTED)
