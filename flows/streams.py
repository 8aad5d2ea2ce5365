"""The three standard streams, also where whoever started the process has closed one of them."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Have what is closed of stdin, stdout and stderr lead to nowhere.

    Otherwise Python has no such stream, and the next file that is opened takes its number: what a library or a child
    prints would be written into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            found = os.open(os.devnull, os.O_RDWR)
            if found != number:
                os.dup2(found, number)
                os.close(found)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115
