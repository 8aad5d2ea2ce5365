"""Decoders for what Arrow's do not read though it is whole: zstd with long windows, gzip padded with zeros.

Both give blocks of bounded size however small the input is, and refuse what is cut off, damaged or followed by
something else.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

from ladm.tasks.reading.records import UnreadableFile
from ladm.tasks.reading.wrapped import WrappedFile

BLOCK_BYTES = 1 << 20
ZSTD_WINDOW_BYTES = 1 << 31  # the most that `zstd --long=31` makes; a file that asks for it takes as much memory
ZSTD_MAGIC, GZIP_MAGIC = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
RLE = 1


class WatchedFile(WrappedFile):
    """A file that remembers an error of its own, so that the decoder above it cannot pass it off as damage."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Read as the wrapped file does, remembering its error."""
        try:
            return super().read(size)
        except Exception as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek as the wrapped file does, remembering its error."""
        try:
            return super().seek(offset, whence)
        except Exception as error:
            self.error = error
            raise

    def raise_own_error(self) -> None:
        """Raise the storage's error if there was one: then a decoder's failure says nothing about the file."""
        if self.error is not None:
            raise self.error


def trailing(codec: str) -> str:
    """Say that a compressed stream is followed by something else."""
    return f"trailing bytes after the {codec} stream that are no part of it"


def is_skippable(head: bytes) -> bool:
    """Whether zstd's skippable frame begins so: 0x184D2A5?, little-endian (RFC 8878, section 3.1.2)."""
    return head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def gzip_blocks(file: WatchedFile) -> Iterator[bytes]:
    """Decompress gzip, any number of members, with zero bytes after them as `gzip -d` allows."""
    data = file.read(BLOCK_BYTES)
    while data:
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            if not data and not (data := file.read(BLOCK_BYTES)):
                raise UnreadableFile("truncated: the gzip stream ends before its end mark")
            try:
                block = decoder.decompress(data, BLOCK_BYTES)
            except zlib.error as error:
                raise UnreadableFile(f"damaged gzip stream: {error}") from error
            data = decoder.unconsumed_tail
            if block:
                yield block
        data = decoder.unused_data
        while (data := data.lstrip(b"\0")) == b"" and (data := file.read(BLOCK_BYTES)):
            pass
        if data and not GZIP_MAGIC.startswith(data[:2]):
            raise UnreadableFile(trailing("gzip"))


def zstd_blocks(file: WatchedFile) -> Iterator[bytes]:
    """Decompress zstd, any number of frames, with windows of up to `ZSTD_WINDOW_BYTES`, block by block (RFC 8878)."""
    while magic := file.read(4):
        if is_skippable(magic):
            rest = int.from_bytes(_exactly(file, 4), "little")
            while rest:
                rest -= len(_exactly(file, min(rest, BLOCK_BYTES)))
            continue
        if magic != ZSTD_MAGIC:
            raise UnreadableFile(trailing("zstd"))
        yield from _frame(file)


def _frame(file: WatchedFile) -> Iterator[bytes]:
    """Decompress one frame, after its magic number."""
    descriptor = _exactly(file, 1)
    single = descriptor[0] >> 5 & 1
    size = (single, 2, 4, 8)[descriptor[0] >> 6] + (0, 1, 2, 4)[descriptor[0] & 3] + (1 - single)
    header = ZSTD_MAGIC + descriptor + _exactly(file, size)
    decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
    last = False
    try:
        decoder.decompress(header)
        while not last:
            mark = _exactly(file, 3)
            number = int.from_bytes(mark, "little")
            last = bool(number & 1)
            content = _exactly(file, 1 if number >> 1 & 3 == RLE else number >> 3)
            end = _exactly(file, 4) if last and descriptor[0] & 4 else b""
            if block := decoder.decompress(mark + content + end):
                yield block
    except zstandard.ZstdError as error:
        if "too much memory" in str(error):
            raise UnreadableFile(
                f"not damaged, but written with a zstd window of more than the {ZSTD_WINDOW_BYTES:,} bytes that are "
                "held in memory; recompress it with `zstd --long=27`"
            ) from error
        raise UnreadableFile(f"damaged zstd stream: {error}") from error


def _exactly(file: WatchedFile, size: int) -> bytes:
    """Read so many bytes; a file that has fewer is cut off."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    if size:
        raise UnreadableFile("truncated: the zstd stream ends before its end mark")
    return b"".join(parts)
