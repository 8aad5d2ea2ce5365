"""Bytes of a source file, block by block: decompressed, then cut into lines, with memory bounded by the block.

Compression is told by the file's first bytes, never by its name: the name only serves to refuse a file of no bytes
at all that claims to be compressed. The decoders used check what the format lets them check: a stream that stops
inside a frame, a wrong checksum, and bytes after the end that are no further frame are all `UnreadableFile`. (A file
cut exactly between two frames cannot be told from a whole one.) Errors of the storage itself pass through unchanged,
so that the caller can retry them.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from ladm.tasks.reading.decoders import (
    BLOCK_BYTES,
    GZIP_MAGIC,
    ZSTD_MAGIC,
    WatchedFile,
    gzip_blocks,
    is_skippable,
    trailing,
    zstd_blocks,
)
from ladm.tasks.reading.records import UnreadableFile

HEAD_BYTES = 1024  # of a line too long to hold, kept for its excerpt
XZ_MEMORY_BYTES = 256 << 20  # four times what `xz -9` needs to decompress

MAGIC = {"zstd": ZSTD_MAGIC, "gzip": GZIP_MAGIC, "bz2": b"BZh", "xz": b"\xfd7zXZ\x00"}
"""What a compressed file begins with; `compression_of` asks for a little more of two of them."""

CLAIMS = {".zst": "zstd", ".zstd": "zstd", ".gz": "gzip", ".bz2": "bz2", ".xz": "xz"}
"""The compression that a name's suffix claims."""

NOT_TEXT = {
    b"PAR1\x15": "Parquet; name it .parquet or set sources[].format: parquet",
    b"ARROW1\0\0": "Arrow; name it .arrow or set sources[].format: arrow",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x04\x22\x4d\x18": "lz4, which is not read; use zstd, gzip, bz2 or xz",
    MAGIC["zstd"]: "zstd inside another compression; decompress it once",
    MAGIC["gzip"]: "gzip inside another compression; decompress it once",
    MAGIC["xz"]: "xz inside another compression; decompress it once",
}
"""First bytes that no text begins with, met after decompression, and what they are."""


class Line(NamedTuple):
    """One line of a stream, without its line ending."""

    number: int
    """1-based."""
    offset: int
    """Of its first byte, counted from the stream's beginning."""
    content: bytes
    """The whole line, or the first bytes of one too long to hold."""
    whole: bool


def compression_of(head: bytes) -> str | None:
    """Tell a file's compression by its first bytes.

    Args:
        head: At least the first 10 bytes, or all of a shorter file.

    Returns:
        `zstd`, `gzip`, `bz2` or `xz`, or None for a file that is not compressed.
    """
    if head.startswith(ZSTD_MAGIC) or is_skippable(head):  # a zstd file may begin with one
        return "zstd"
    # `BZh9` alone could begin a text; with what follows it, a first block or the end of an empty file, it cannot.
    if head.startswith(MAGIC["bz2"]):
        after = head[4:10]
        known = any(mark.startswith(after) for mark in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"))
        return "bz2" if after and known and head[3:4].isdigit() else None
    return next((name for name in ("gzip", "xz") if head.startswith(MAGIC[name])), None)


def claimed_compression(name: str) -> str | None:
    """Say which compression a file's name claims; None for none."""
    return next((codec for suffix, codec in CLAIMS.items() if name.lower().endswith(suffix)), None)


def blocks_of(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Read a file, decompressed if its first bytes say that it is compressed.

    Args:
        file: Open for binary reading, at its beginning, seekable.
        name: Its name, to tell an empty file from one that lost its content.

    Yields:
        Blocks of 1 to `BLOCK_BYTES` bytes.

    Raises:
        UnreadableFile: The compressed stream is truncated, damaged, or followed by something else; or the file has
            no bytes although its name claims compression.
        OSError: The storage failed.
    """
    head = file.read(16)
    file.seek(0)
    codec, claimed = compression_of(head), claimed_compression(name)
    if claimed and not head:
        raise UnreadableFile(f"empty: not a valid {claimed} file")
    if claimed and codec is None and len(head) < 6 and (head[:3] == MAGIC[claimed] or MAGIC[claimed].startswith(head)):
        raise UnreadableFile(f"truncated: the {claimed} stream ends inside its header")
    return decoded(file, codec)


def decoded(file: BinaryIO, codec: str | None) -> Iterator[bytes]:
    """Read a file whose compression is known; see `blocks_of`."""
    watched = WatchedFile(file)
    if codec is None:
        return iter(lambda: watched.read(BLOCK_BYTES), b"")
    if codec == "xz":
        return _xz_blocks(watched)
    return _arrow_blocks(watched, codec)


def _arrow_blocks(watched: WatchedFile, codec: Any) -> Iterator[bytes]:
    """Decompress zstd, gzip or bz2, any number of frames, with the output bounded however small the input is."""
    stream = pa.CompressedInputStream(pa.PythonFile(watched, mode="r"), codec)
    given = 0
    while True:
        try:
            block: bytes = stream.read(BLOCK_BYTES)
        except (OSError, pa.ArrowException) as error:
            watched.raise_own_error()
            reason = _decoder_reason(codec, str(error))
            if (again := SLOWER.get((codec, reason.partition(":")[0]))) is None:
                raise UnreadableFile(reason) from error
            break
        if not block:
            return
        given += len(block)
        yield block
    watched.seek(0)
    for block in again(watched):  # what was given already is left out
        if len(block) > given:
            yield block[given:]
        given = max(0, given - len(block))


def _decoder_reason(codec: str, message: str) -> str:
    """Put a decoder's failure into the three kinds that a user can act on."""
    if "Truncated" in message:
        return f"truncated: the {codec} stream ends before its end mark"
    # The first frame began with the right bytes, or this codec had not been chosen: a bad beginning is a later one.
    if any(sign in message for sign in ("Unknown frame", "incorrect header check", "unknown compression", "no magic")):
        return trailing(codec)
    if "too much memory" in message:
        return f"{LONG_WINDOW}: {message}"
    return f"damaged {codec} stream: {message}"


LONG_WINDOW = "long window"
SLOWER: dict[tuple[str, str], Callable[[WatchedFile], Iterator[bytes]]] = {
    ("zstd", LONG_WINDOW): zstd_blocks,
    ("gzip", trailing("gzip")): gzip_blocks,
    ("gzip", "truncated"): gzip_blocks,  # what Arrow says of a few zeros
}
"""(codec, what Arrow's decoder says) → the decoder that reads such a file from its beginning, if it is whole."""


def _xz_blocks(watched: WatchedFile) -> Iterator[bytes]:
    """Decompress xz, any number of streams, zero-padded or not; Arrow has no decoder for it."""
    data = b""
    while data or (data := watched.read(BLOCK_BYTES)):
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
        while not decoder.eof:
            if decoder.needs_input and not data and not (data := watched.read(BLOCK_BYTES)):
                raise UnreadableFile("truncated: the xz stream ends before its end mark")
            try:
                block = decoder.decompress(data, BLOCK_BYTES)
            except lzma.LZMAError as error:
                raise UnreadableFile(f"damaged xz stream: {error}") from error
            data = b""
            if block:
                yield block
        data = decoder.unused_data
        # Between streams the format allows zero bytes (the .xz file format, section 2.2).
        while (data := data.lstrip(b"\0")) == b"" and (data := watched.read(BLOCK_BYTES)):
            pass
        if data and not MAGIC["xz"].startswith(data[:6]):
            raise UnreadableFile(trailing("xz"))


def text_blocks(blocks: Iterator[bytes]) -> tuple[int, Iterator[bytes]]:
    """Look at a decompressed stream's beginning and take a UTF-8 byte order mark off it.

    Args:
        blocks: The stream, from its beginning.

    Returns:
        The bytes taken off (0 or 3), and the rest of the stream.

    Raises:
        UnreadableFile: The stream is UTF-16 or UTF-32, or some other file format.
    """
    head = b""
    for block in blocks:
        head += block
        if len(head) >= 8:
            break
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        wide = head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff"))
        raise UnreadableFile(f"{'UTF-32' if wide else 'UTF-16'} text, not UTF-8: convert the file to UTF-8", 1)
    for magic, what in NOT_TEXT.items():
        if head.startswith(magic):
            raise UnreadableFile(f"not text but {what}", 1)
    skipped = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    return skipped, chain([head[skipped:]], blocks)


def lines_of(
    blocks: Iterable[bytes], limit: int, start: int = 0, number: int = 1, stop: float = math.inf
) -> Iterator[Line]:
    r"""Cut a stream into lines at `\n` alone: U+2028 and the like are text.

    Args:
        blocks: The stream.
        limit: The longest line to hold, in bytes up to the `\n`. Of a longer one only the beginning is given.
        start: The offset of the stream's first byte.
        number: Of the line that begins there.
        stop: Lines that begin at this offset or behind it are not read.

    Yields:
        The lines, blank ones too, without `\n` or `\r\n`. The bytes after the last `\n` are a line if there are any.
    """
    offset, size = start, 0
    parts: list[bytes] = []  # of the line not yet ended; joined once, so a line of many blocks costs no more

    def head() -> bytes:
        return b"".join(part[:HEAD_BYTES] for part in parts)[:HEAD_BYTES]

    def finished() -> Line:
        if size > limit:
            return Line(number, offset, head(), False)
        return Line(number, offset, b"".join(parts).removesuffix(b"\r"), True)

    for block in blocks:
        *ended, rest = block.split(b"\n")
        for part in ended:
            size += len(part)
            parts.append(part)
            line = finished()
            offset += size + 1
            number, size = number + 1, 0
            parts.clear()  # before the line is used, so that a long one is held once
            yield line
            if offset >= stop:
                return
        size += len(rest)
        parts.append(rest)
        if size > limit:
            parts = [head()]
    if size:
        yield finished()
