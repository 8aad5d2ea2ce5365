"""A disk that is full: the error says which file or folder it is about."""

from __future__ import annotations

import errno
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.tasks.storage.file_systems import naming, reason_and_place
from ladm.tasks.storage.store import Store


class Full(io.RawIOBase):
    """A file on a full disk, which is known when it is closed where `late`."""

    def __init__(self, path: Path, late: bool) -> None:
        super().__init__()
        path.touch()
        self.late = late

    def write(self, data: Any) -> int:
        """Take nothing."""
        if not self.late:
            raise OSError(errno.ENOSPC, "No space left on device")
        return memoryview(data).nbytes

    def close(self) -> None:
        """As a network's disk may, or what was buffered."""
        if not self.closed:
            super().close()
            if self.late:
                raise OSError(errno.ENOSPC, "No space left on device")

    def writable(self) -> bool:
        """It is for writing only."""
        return True


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("parquet", [False, True])
def test_a_file_of_the_store(late: bool, parquet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda path, mode: Full(path, late))
    with pytest.raises(OSError, match="No space left on device") as raised, Store(str(tmp_path)).writing("a/b") as file:
        pq.write_table(pa.table({"a": [1]}), file) if parquet else file.write(b"x")
    assert raised.value.filename == str(tmp_path / "a/b")
    assert list((tmp_path / "a").iterdir()) == []


def test_what_names_a_file_already_and_what_the_system_did_not_say_stay_as_they_are() -> None:
    for error in (OSError(errno.EIO, "broken", "/a/source"), OSError("no number")):
        with pytest.raises(OSError, match=r"broken|number") as raised, naming("/a/target"):
            raise error
        assert raised.value.filename in ("/a/source", None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    ).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("chosen", ["parquet", "{format: mds, eos: 0}"])
def test_a_run_ends_with_the_place(
    chosen: str, small_disk: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ladm: Any
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    arguments = run_arguments(corpus, tmp_path / "store", f"export=[{chosen}]")
    (small_disk / "all of it").write_bytes(bytes(2**20 - 4096 * 2))
    answer: Answer = ladm(*arguments)
    (failure,) = answer.record["failures"]
    assert answer.code == 1
    assert "No space left on device" in failure["error"]
    assert str(small_disk) in failure["error"]


@pytest.mark.parametrize("failing", ["store", "duckdb", "nothing named"])
def test_what_a_run_says_of_its_own_end(failing: str) -> None:
    error = {
        "store": OSError(errno.ENOSPC, "No space left on device", "/a/store/run.json"),
        "duckdb": OSError("could not write to file '/a/store/run.json': No space left on device"),
        "nothing named": OSError(errno.ENOSPC, "No space left on device"),
    }[failing]
    said = reason_and_place(error)
    assert "No space left on device" in said
    assert said.count("/a/store/run.json") == (failing != "nothing named")
