"""The three standard streams, also where one of them is closed, or what is told cannot be written any more."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


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


def write_everything() -> None:
    """Have any text be written, also where the terminal's encoding, or `PYTHONIOENCODING`, has no place for it.

    ASCII becomes UTF-8, which differs in nothing that ASCII can write; what another encoding lacks is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")


class _Telling:
    """A stream for what is told, not for results: what it cannot take is lost, and nothing ends for that."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def keep_telling() -> None:
    """Have a command go on where stderr cannot be written: the disk of its log is full, or its terminal is gone."""
    if not isinstance(sys.stderr, _Telling):
        sys.stderr = cast(TextIO, _Telling(sys.stderr))


OUTPUT = "standard output"
"""What stdout is called in an error of it."""


class _Results:
    """A stream for results: where it cannot take them, the error names it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _named():
            return self._stream.write(text)

    def flush(self) -> None:
        with _named():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = error.filename or OUTPUT
        raise


def name_the_output() -> None:
    """Have an error of stdout name it, so that nobody looks for a full disk in the store."""
    if not isinstance(sys.stdout, _Results):
        sys.stdout = cast(TextIO, _Results(sys.stdout))
