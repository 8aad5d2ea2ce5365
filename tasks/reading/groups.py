"""Packing: which small source files are read together, by one job.

Files are cut into groups by what they are, as rolling hashes cut files by their content: in the order of the listing, a
file ends its group if the hash of its name falls below a threshold. Whether it does depends on no other file, so that a
file that is added, changed or removed changes its own group and no other; one that ends a group parts it in two, or
joins it to the next one, as it comes and goes. A group that comes out much too large is cut again, by the same hashes:
there, a new file may move a cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby

from ladm.tasks.reading.sources import ListedFile

FEWEST = 32
"""An entry of `sources:` with fewer small files is not packed: their jobs cost next to nothing."""
LARGE_SHARE = 4
"""A file of this part of a group's bytes, or more, is a job of its own."""
LEAST_BYTES = 4096
"""A file counts as so many bytes at least, which bounds the number of files in a group."""
MOST_GROUPS = 2
"""A group that comes out as large as so many is cut again."""


def groups_of(files: Sequence[ListedFile], pack_bytes: int) -> list[list[ListedFile]]:
    """Each job's files: one that is large, or a group of small ones of the same entry.

    Args:
        files: In the order of the listing.
        pack_bytes: A group has about so many bytes, as stored; 0: nothing is packed.
    """
    groups: list[list[ListedFile]] = []
    for _, of_entry in groupby(files, key=lambda listed: listed.config):
        listed = list(of_entry)
        small = [one for one in listed if one.file.size * LARGE_SHARE < pack_bytes]
        if len(small) < FEWEST:
            groups += [[one] for one in listed]
            continue
        groups += [[one] for one in listed if one.file.size * LARGE_SHARE >= pack_bytes]
        for segment in _segments(small, pack_bytes):
            groups += _parted(segment, pack_bytes)
    return groups


def _segments(files: Sequence[ListedFile], pack_bytes: int) -> Iterator[list[ListedFile]]:
    """Cut at every file whose hash says so, on average once in `pack_bytes`."""
    segment: list[ListedFile] = []
    for one in files:
        segment.append(one)
        if _hash(one) * pack_bytes < _weight(one) << 64:
            yield segment
            segment = []
    if segment:
        yield segment


def _parted(segment: list[ListedFile], pack_bytes: int) -> list[list[ListedFile]]:
    """A segment that is much too large, cut at the file of the lowest hash, and so on."""
    if len(segment) == 1 or sum(map(_weight, segment)) <= MOST_GROUPS * pack_bytes:
        return [segment]
    lowest = min(range(len(segment) - 1), key=lambda number: _hash(segment[number]))
    return [*_parted(segment[: lowest + 1], pack_bytes), *_parted(segment[lowest + 1 :], pack_bytes)]


def _weight(one: ListedFile) -> int:
    """A file's bytes as the nearest power of two: a file that changes a little keeps its place in the groups."""
    size = max(one.file.size, LEAST_BYTES)
    power = 1 << (size.bit_length() - 1)
    return power if size * size <= 2 * power * power else 2 * power


def _hash(one: ListedFile) -> int:
    """Of the file's name, 64 bits."""
    name = one.file.known_as.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
