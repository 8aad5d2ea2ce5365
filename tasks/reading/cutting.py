"""Cutting: at which bytes, or row groups, a large source file can be read by several jobs.

JSON lines that are not compressed can be cut anywhere, since a line belongs to the part in which it begins. Compressed
ones can be cut where a decoder can begin: at a frame of zstd, a stream of bz2 or xz, a block of the gzip that `bgzip`
writes. These begin with known bytes, which may also stand elsewhere by chance. So a cut is a guess, a good one, that
reading proves: a part that does not begin and end with a frame cannot be decoded, and the file is then read as a whole.
What has one frame only is not cut.
"""

from __future__ import annotations

import itertools
import re
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.tasks.manifest import Part
from ladm.tasks.reading.decoders import ZSTD_MAGIC
from ladm.tasks.reading.streams import compression_of

FRAMES = {
    "zstd": re.compile(re.escape(ZSTD_MAGIC)),
    "gzip": re.compile(rb"\x1f\x8b\x08\x04.{6}\x06\0BC\x02\0", re.DOTALL),  # of bgzip (the SAM specification, 4.1)
    "bz2": re.compile(rb"BZh[1-9]1AY&SY"),
    "xz": re.compile(rb"\xfd7zXZ\0\0[\0\1\4\x0a]"),
}
"""Compression → what a frame begins with."""
MARK_BYTES = 16
LOOKED_AT = 2**20
ZSTD_BLOCK_BYTES = 128 * 1024
ZSTD_BLOCKS = 6
"""A frame's first blocks, which are looked at; that they look like blocks by chance is out of the question."""
SHORTEST_HEADER, LONGEST_HEADER = 6, 18


def parts_of_lines(file: BinaryIO, part_bytes: int, uncompressed_bytes: int) -> list[Part]:
    """The parts in which a file of JSON lines is read; none where it can only be read from its beginning.

    Args:
        file: Open for binary reading, seekable.
        part_bytes: Stored bytes of a part, at least.
        uncompressed_bytes: The same, where the file is not compressed.
    """
    size = file.seek(0, 2)
    codec = compression_of(_at(file, 0, MARK_BYTES))
    if codec is None:
        return _parts([*range(0, size, uncompressed_bytes), size])
    cuts = [0]
    for goal in range(part_bytes, size, part_bytes):
        if goal <= cuts[-1]:
            continue
        cut = _first_frame(file, codec, goal, min(goal + part_bytes, size))
        if cut is not None:
            cuts.append(cut)
        elif len(cuts) == 1:
            return []  # a frame of more than a part: most likely the only one
    return _parts([*cuts, size])


def parts_of_parquet(file: BinaryIO, part_bytes: int) -> list[Part]:
    """The parts, of whole row groups, in which a Parquet file is read; none where it has one, or cannot be read."""
    try:
        metadata = pq.read_metadata(file)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        sizes = [sum(one.column(place).total_compressed_size for place in range(one.num_columns)) for one in groups]
    except (OSError, ValueError, pa.ArrowException):  # reading tells what is wrong with it
        return []
    parts: list[Part] = []
    begin = 0
    for end in range(1, len(sizes) + 1):
        stored = sum(sizes[begin:end])
        if stored >= part_bytes or end == len(sizes):
            parts.append(Part(begin=begin, end=end, bytes=stored))
            begin = end
    return parts if len(parts) > 1 else []


def _parts(cuts: list[int]) -> list[Part]:
    parts = [Part(begin=begin, end=end, bytes=end - begin) for begin, end in itertools.pairwise(cuts)]
    return parts if len(parts) > 1 else []


def _first_frame(file: BinaryIO, codec: str, begin: int, end: int) -> int | None:
    """Where the first frame begins between two places; None where there is none."""
    for at in range(begin, end, LOOKED_AT):
        window = _at(file, at, min(LOOKED_AT, end - at) + MARK_BYTES - 1)
        for found in FRAMES[codec].finditer(window):
            place = at + found.start()
            if place < end and (codec != "zstd" or _looks_like_zstd(file, place)):
                return place
    return None


def _looks_like_zstd(file: BinaryIO, place: int) -> bool:
    """Whether a frame's header and its first blocks could be such (RFC 8878, section 3.1.1)."""
    header = _at(file, place, LONGEST_HEADER)
    if len(header) < SHORTEST_HEADER or header[4] & 8:  # a bit that must be zero
        return False
    single = header[4] >> 5 & 1
    at = place + 5 + (single, 2, 4, 8)[header[4] >> 6] + (0, 1, 2, 4)[header[4] & 3] + (1 - single)
    for _ in range(ZSTD_BLOCKS):
        mark = _at(file, at, 3)
        number = int.from_bytes(mark, "little")
        kind, size = number >> 1 & 3, number >> 3
        if len(mark) < 3 or kind == 3 or size > ZSTD_BLOCK_BYTES:
            return False
        if number & 1:
            return True
        at += 3 + (1 if kind == 1 else size)
    return True


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)
