"""What is tried again: what can pass, and nothing else."""

from __future__ import annotations

import errno
import io
import ssl
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import botocore.exceptions
import cloudpickle
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem

from ladm.tasks.errors import ConfigError, ModelError
from ladm.tasks.reading.records import UnreadableFile
from ladm.tasks.stage import ContentKeyPolicy, StoreRecords, can_pass, stage_task
from ladm.tasks.stages.length import STAGE
from ladm.tasks.storage.store import DamagedFileError

PASSING: list[Exception] = [
    OSError("the disk is gone"),
    OSError(errno.ENOSPC, "No space left on device"),
    ConnectionError("gone"),
    ConnectionResetError(),
    TimeoutError(),
    FSTimeoutError(),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError("cut off"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:9"),
    botocore.exceptions.ClientError({"Error": {"Code": "SlowDown"}}, "GetObject"),
    MemoryError(),
    pa.ArrowMemoryError("malloc failed"),
    torch.OutOfMemoryError(),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    duckdb.IOException("IO Error: could not write"),
    duckdb.OutOfMemoryException("failed to allocate"),
]
LASTING: list[Exception | None] = [
    KeyError("our own"),
    IndexError(),
    AttributeError(),
    NameError(),
    TypeError(),
    ValueError(),
    AssertionError(),
    ZeroDivisionError(),
    ImportError(),
    NotImplementedError(),
    RecursionError(),
    RuntimeError("expected a tensor"),
    StopIteration(),
    Exception("who knows"),
    UnicodeDecodeError("utf-8", b"", 0, 1, "bad"),
    FileNotFoundError(),
    IsADirectoryError(),
    NotADirectoryError(),
    PermissionError(),
    io.UnsupportedOperation(),
    ssl.SSLCertVerificationError(),
    ConfigError("mistaken"),
    ModelError("mistaken"),
    UnreadableFile("damaged"),
    DamagedFileError(["a"]),
    pa.ArrowInvalid("not Parquet"),
    duckdb.BinderException("no such column"),
    duckdb.InternalException("a bug"),
    None,
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_can_pass(error: Exception) -> None:
    assert can_pass(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_is_the_same_the_next_time(error: Exception | None) -> None:
    assert not can_pass(error)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionError("gone"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (aiohttp.ServerDisconnectedError(), True),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), True),
        (MemoryError(), True),
        (PermissionError(errno.EACCES, "not yours"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (KeyError("our own"), False),
    ],
    ids=repr,
)
def test_what_a_file_system_raises_below_duckdb(tmp_path: Path, error: Exception, passes: bool) -> None:
    """DuckDB gives all of it one type."""

    class Failing:
        def __init__(self, file: Any) -> None:
            self.file = file

        def read(self, *_: object) -> bytes:
            raise error

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    class FailingFiles(LocalFileSystem):  # type: ignore[misc]
        protocol = "failing"
        cachable = False

        def open(self, path: str, mode: str = "rb", **_: object) -> Any:
            return Failing(Path(self._strip_protocol(path)).open(mode))

    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "x.parquet")
    with duckdb.connect() as connection:
        connection.register_filesystem(FailingFiles())
        with pytest.raises(Exception) as raised:  # noqa: PT011
            connection.execute(f"from read_parquet('failing://{tmp_path}/x.parquet')").fetchall()
    assert can_pass(raised.value) is passes, raised.value


def test_the_users_settings_for_tasks_of_their_own_are_no_matter(tmp_path: Path) -> None:
    from prefect.settings import (
        PREFECT_FLOW_DEFAULT_RETRIES,
        PREFECT_TASK_DEFAULT_RETRIES,
        PREFECT_TASKS_DISABLE_CACHING,
        PREFECT_TASKS_REFRESH_CACHE,
        temporary_settings,
    )

    from ladm.flows.dag.curate import curate

    theirs: dict[Any, Any] = {
        PREFECT_TASKS_DISABLE_CACHING: True,
        PREFECT_TASKS_REFRESH_CACHE: True,
        PREFECT_TASK_DEFAULT_RETRIES: 5,
        PREFECT_FLOW_DEFAULT_RETRIES: 5,
    }
    records = StoreRecords(uri=str(tmp_path))
    records._block_document_id = uuid.uuid4()  # as if a server had it
    with temporary_settings(updates=theirs):
        task = stage_task(STAGE, records, 0, 0)
        assert isinstance(task.cache_policy, ContentKeyPolicy)
        assert (task.refresh_cache, task.retries, task.persist_result) == (False, 0, True)
        assert (curate.with_options().retries, curate.result_serializer) == (0, "json")


def test_what_a_task_does_can_be_sent_to_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray and Dask send it by value, with all that it names of its module."""
    monkeypatch.setattr("ladm.tasks.stage.Task", lambda run, **options: run)
    run = stage_task(STAGE, StoreRecords(uri=str(tmp_path)), 0, 0)
    assert callable(cloudpickle.loads(cloudpickle.dumps(run)))
