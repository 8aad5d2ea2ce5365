"""Reading tells how many of the stored bytes were read, each once, and all of them in the end."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from ladm.flows import bytes_read
from ladm.flows.bytes_read import BytesRead
from ladm.tasks import progress
from ladm.tasks.reading.records import UnreadableFile
from ladm.tasks.reading.reported import REPORTED_BYTES, ReportedFile

SIZE = 5 * REPORTED_BYTES + 7


@pytest.fixture
def told() -> Iterator[list[int]]:
    found: list[int] = []
    token = progress.listener.set(lambda stage, size: found.append(size))
    yield found
    progress.listener.reset(token)


def read(total: int, error: Exception | None = None) -> None:
    with ReportedFile(io.BytesIO(bytes(SIZE)), "ingest", total) as file:
        for _ in range(2):  # the second time counts no more
            file.seek(0)
            while file.read(REPORTED_BYTES // 4):
                pass
        if error:
            raise error


def test_each_byte_counts_once(told: list[int]) -> None:
    read(SIZE)
    assert (sum(told), max(told)) == (SIZE, REPORTED_BYTES)
    assert len(told) == 6
    told.clear()
    read(10 * SIZE)  # a part of which some is not read at all
    assert sum(told) == 10 * SIZE


def test_what_is_tried_again_counts_anew_and_what_is_damaged_does_not(told: list[int]) -> None:
    with pytest.raises(OSError, match="gone"):
        read(SIZE, OSError("gone"))
    assert (sum(told), min(told)) == (0, -5 * REPORTED_BYTES)
    told.clear()
    with pytest.raises(UnreadableFile):
        read(SIZE, UnreadableFile("damaged"))
    assert sum(told) == SIZE


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(bytes_read.time, "monotonic", lambda: now)
    lines: list[str] = []
    read = BytesRead(lines.append)
    read.expect(3_000_000_000)
    read.advance(1_000_000)
    assert lines == []
    now += bytes_read.EVERY_SECONDS + 1
    read.advance(499_000_000)
    read.advance(1_000_000)
    assert lines == ["ingest    reading 500 of 3,000 MB"]
