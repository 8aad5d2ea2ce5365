"""Parts of a large file of JSON lines: each read by itself, with the same numbers of lines as if all of it were.

A line belongs to the part in which it begins, and is read to its end, wherever that is. What its number is depends on
all parts before it. So each part is looked through for its line breaks first, and leaves a note for the next one: the
*place* where that begins. Parts that are read at the same time have a note soon after each other; one that finds none
after a while counts what is missing by itself. Whoever counts finds the same.
"""

from __future__ import annotations

import io
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, cast

import orjson

from ladm.tasks import stopping
from ladm.tasks.manifest import Part
from ladm.tasks.reading.records import LastRead
from ladm.tasks.reading.streams import Line, compression_of, decoded, lines_of, text_blocks
from ladm.tasks.reading.wrapped import WrappedFile
from ladm.tasks.storage.files import Files

HELD_BYTES = 192 * 2**20
"""Of a part so much is held, decompressed, from when its lines are counted until they are read; more is read twice."""
PATIENCE_SECONDS = 10.0
"""How long a part waits for the note of the one before it."""


class Place(NamedTuple):
    """Where a part begins in the decompressed file."""

    line: int
    """Number of the line that the next byte belongs to, from 1."""
    offset: int
    """Bytes before it."""
    begins: bool
    """Whether that line begins here."""
    blank: bool
    """Whether there is nothing but white space before it."""


START = Place(1, 0, True, True)


class Places:
    """The places where parts of one file begin, as far as they are known, by the stored byte."""

    def __init__(self, store: Files, folder: str) -> None:
        """Keep them as notes in a folder of the store."""
        self._store, self._folder = store, folder

    def known(self, begin: int) -> Place | None:
        """The place of a stored byte; None if it is not known yet."""
        if begin == 0:
            return START
        try:
            line, offset, begins, blank = orjson.loads(self._store.read_bytes(self._path(begin)))
            return Place(int(line), int(offset), bool(begins), bool(blank))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def note(self, begin: int, place: Place) -> None:
        """Note the place of a stored byte."""
        self._store.write_bytes(self._path(begin), orjson.dumps(list(place)))

    def awaited(self, begin: int, count: Callable[[int, int, Place], Place]) -> Place:
        """The place of a stored byte: noted by another job meanwhile, or found by `count`.

        Args:
            begin: The stored byte.
            count: Of a stored byte, a later one, and the place of the first: the place of the second.
        """
        late, pause = time.monotonic() + PATIENCE_SECONDS, 0.05
        while (place := self.known(begin)) is None and time.monotonic() < late:
            stopping.check()
            time.sleep(pause)
            pause = min(2 * pause, 0.2)
        if place is not None:
            return place
        stems = (name.removesuffix(".json") for name in self._store.names(self._folder))
        before = sorted((int(stem) for stem in stems if stem.isdigit() and int(stem) < begin), reverse=True)
        nearest, known = next((at, place) for at in [*before, 0] if (place := self.known(at)))
        place = count(nearest, begin, known)
        self.note(begin, place)
        return place

    def _path(self, begin: int) -> str:
        return f"{self._folder}/{begin}.json"


class Section(WrappedFile):
    """The bytes of a file from one place to another, as if they were a file. It does not close the file."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        super().__init__(file)
        self._begin, self._at, self._end = begin, begin, end

    def read(self, size: int = -1) -> bytes:
        """Read on, at most to the section's end."""
        left = self._end - self._at
        self._file.seek(self._at)  # other sections of the file may have been read meanwhile
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place of the section."""
        self._at = {io.SEEK_SET: self._begin, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence] + offset
        return self._at - self._begin

    def tell(self) -> int:
        """The place in the section."""
        return self._at - self._begin


@dataclass(frozen=True)
class Wanted:
    """Which records of a file are read."""

    part: Part | None = None
    """Those that begin in a part of it; all of them, when not given."""
    places: Places | None = None
    """Of a part of JSON lines, where parts begin."""
    after: LastRead | None = None
    """Those behind a record."""


ALL = Wanted()


def lines_behind(file: BinaryIO, after: LastRead, limit: int) -> Iterator[Line]:
    """The lines behind one.

    Args:
        file: Open for binary reading, seekable.
        after: The line.
        limit: As of `lines_of`.

    Raises:
        UnreadableFile: As of `blocks_of`.
    """
    codec = compression_of(_head(file))
    size = file.seek(0, io.SEEK_END)
    begin = after.offset if codec is None else 0
    blocks = decoded(cast(BinaryIO, Section(file, begin, size)), codec)
    yield from _behind_line(_skipping(blocks, after.offset - begin), after, limit)


def lines_of_part(
    file: BinaryIO, part: Part, places: Places, limit: int, after: LastRead | None = None
) -> tuple[bool, Iterator[Line]]:
    """The lines that begin in a part.

    Args:
        file: Open for binary reading, seekable.
        part: Whole frames of it, or any bytes where it is not compressed.
        places: Where parts begin; gets the place where this one ends.
        limit: As of `lines_of`.
        after: A line of the part; those behind it are read.

    Returns:
        Whether no line before these holds anything, and the lines, blank ones too.

    Raises:
        UnreadableFile: As of `blocks_of`; also where the part does not begin or end with a frame.
    """
    codec = compression_of(_head(file))
    size = file.seek(0, io.SEEK_END)

    def blocks(begin: int, end: int) -> Iterator[bytes]:
        if begin < end:
            yield from decoded(cast(BinaryIO, Section(file, begin, end)), codec)

    def counted(begin: int, end: int, place: Place) -> Place:
        return _behind(place, _looked_at(blocks(begin, end)))

    here, behind = places.known(part.begin), places.known(part.end)
    held: deque[bytes] | None = None
    if here is None or behind is None:
        held = deque()
        looked = list(_looked_at(_holding(blocks(part.begin, part.end), held)))
        here = here or places.awaited(part.begin, counted)
        behind = _behind(here, looked)
        places.note(part.end, behind)
    content = _letting_go(held) if held else blocks(part.begin, part.end)
    stream: Iterator[bytes] = itertools.chain(content, blocks(part.end, size))
    if after:
        stream = _skipping(stream, after.offset - here.offset)
        return False, _begun(_behind_line(stream, after, limit, behind.offset), behind)
    return here.blank, _begun(_lines(stream, here, behind, limit), behind)


def _begun(lines: Iterator[Line], behind: Place) -> Iterator[Line]:
    return itertools.takewhile(lambda line: line.offset < behind.offset, lines)


def _behind_line(blocks: Iterator[bytes], after: LastRead, limit: int, stop: float = math.inf) -> Iterator[Line]:
    """The lines behind one with which some blocks begin."""
    lines = lines_of(blocks, limit, after.offset, after.line, stop)
    next(lines, None)
    return lines


def _skipping(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The blocks without their first bytes."""
    for block in blocks:
        if size < len(block):
            yield block[size:]
        size = max(0, size - len(block))


def _lines(blocks: Iterator[bytes], here: Place, behind: Place, limit: int) -> Iterator[Line]:
    skipped = 0
    if not here.offset:
        skipped, blocks = text_blocks(blocks)
    lines = lines_of(blocks, limit, here.offset + skipped, here.line, behind.offset)
    if not here.begins:
        next(lines, None)  # the rest of one that began in an earlier part
    yield from lines


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(16)


class _Looked(NamedTuple):
    """What a block of a stream is found to have."""

    bytes: int
    breaks: int
    ended: bool
    """Whether it ends with a line break."""
    blank: bool


def _looked_at(blocks: Iterable[bytes]) -> Iterator[_Looked]:
    blank = True
    for block in blocks:
        stopping.check()
        blank = blank and not block.strip()
        yield _Looked(len(block), block.count(b"\n"), block.endswith(b"\n"), blank)


def _behind(place: Place, blocks: Iterable[_Looked]) -> Place:
    """The place behind some blocks."""
    for block in blocks:
        line, offset = place.line + block.breaks, place.offset + block.bytes
        place = Place(line, offset, block.ended, place.blank and block.blank)
    return place


def _holding(blocks: Iterator[bytes], held: deque[bytes]) -> Iterator[bytes]:
    """The blocks, which are held, too, unless they are too many: then none is."""
    total = 0
    for block in blocks:
        total += len(block)
        if total <= HELD_BYTES:
            held.append(block)
        else:
            held.clear()
        yield block


def _letting_go(held: deque[bytes]) -> Iterator[bytes]:
    while held:
        yield held.popleft()
