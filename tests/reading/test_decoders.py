"""What standard tools read is read: zstd with long windows, gzip padded with zeros; and damage in them is refused."""

from __future__ import annotations

import gzip
import io
import random

import pytest
import zstandard

from ladm.tasks.reading.readers import UnreadableFile
from ladm.tasks.reading.streams import blocks_of

WORDS = random.Random(5)
CONTENT = b"".join(WORDS.randbytes(50_000) + b"the same again " * 9000 for _ in range(20))


def long(window_log: int, content: bytes = CONTENT, sized: bool = False, **options: bool) -> bytes:
    """A frame that asks for a window of so many bits, as `zstd --long=N` writes a stream."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1, window_log=window_log, enable_ldm=True, write_content_size=sized, **options
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(content) + compressor.flush()


def read(content: bytes, name: str = "a.jsonl.zst") -> bytes:
    blocks = list(blocks_of(io.BytesIO(content), name))
    assert all(0 < len(block) <= 1 << 20 for block in blocks)
    return b"".join(blocks)


def refusal(content: bytes, name: str = "a.jsonl.zst") -> str:
    with pytest.raises(UnreadableFile) as refused:
        read(content, name)
    return refused.value.reason


@pytest.mark.parametrize("window_log", [20, 27, 28, 29, 31])
@pytest.mark.parametrize("checksum", [True, False])
def test_zstd_with_a_long_window(window_log: int, checksum: bool) -> None:
    frame = long(window_log, write_checksum=checksum)
    assert read(frame) == CONTENT
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0hello"
    small = zstandard.ZstdCompressor().compress(CONTENT)
    assert read(small + skippable + frame + skippable + small) == CONTENT * 3


def test_zstd_with_a_long_window_of_repeated_bytes_and_none() -> None:
    assert read(long(31, b"\0" * 5_000_000)) == b"\0" * 5_000_000
    assert read(long(31, b"")) == b""


def test_a_long_window_cut_damaged_or_followed_is_refused() -> None:
    frame = long(29, write_checksum=True)
    for length in [6, 7, 9, 100, len(frame) // 2, len(frame) - 4, len(frame) - 1]:
        assert refusal(frame[:length]).startswith("truncated: the zstd stream"), length
    assert refusal(frame + b"abcd") == "trailing bytes after the zstd stream that are no part of it"
    assert refusal(frame + b"abcdefghi") == "trailing bytes after the zstd stream that are no part of it"
    damaged = bytearray(frame)
    damaged[len(frame) // 2] ^= 1
    assert refusal(bytes(damaged)).startswith("damaged zstd stream")
    huge = bytearray(frame)
    huge[5] = 30 << 3  # 2^40 bytes
    assert refusal(bytes(huge)).startswith("not damaged, but written with a zstd window of more than the 2,147,483,648")


@pytest.mark.parametrize("zeros", [1, 3, 512, 3_000_000])
def test_gzip_padded_with_zeros(zeros: int) -> None:
    member = gzip.compress(CONTENT)
    assert read(member + b"\0" * zeros, "a.jsonl.gz") == CONTENT
    assert read(member * 2 + b"\0" * zeros + member, "a.jsonl.gz") == CONTENT * 3
    assert "trailing bytes after the gzip" in refusal(member + b"\0" * zeros + b"x", "a.jsonl.gz")
    assert "truncated: the gzip" in refusal(member + b"\0" * zeros + member[:-3], "a.jsonl.gz")
    damaged = bytearray(member + b"\0" * zeros + member)
    damaged[-6] ^= 1
    assert "damaged gzip" in refusal(bytes(damaged), "a.jsonl.gz")
