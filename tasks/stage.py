"""The one place that makes a stage's plain function a Prefect task: cache, retries and accounting.

Every stage is served alike: Prefect's cache under the job's content key, with the store itself as result storage,
and retries with exponential backoff for what can pass. Nothing else in the project touches Prefect's caching.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import orjson
import prefect
from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.filesystems import WritableFileSystem
from prefect.tasks import exponential_backoff

from ladm.tasks.job import Job, Stage, run_jobs
from ladm.tasks.manifest import Manifest, record_path
from ladm.tasks.passing import can_pass
from ladm.tasks.reading.finished_shards import OF_STAGE, FinishedShards
from ladm.tasks.sealing import manifest_of, sealed, unsealed
from ladm.tasks.storage.file_systems import io_errors
from ladm.tasks.storage.store import Store

__all__ = ["ContentKeyPolicy", "StoreRecords", "can_pass", "sealed", "stage_task", "unsealed", "worth_retrying"]

doing: ContextVar[Callable[[Stage, Job], list[Manifest]]] = ContextVar("doing", default=run_jobs)
"""What does a task's job: this process, or another that a runner chose. Prefect hands it on to its task threads."""
PATIENCE_SECONDS = 60.0
"""How long the record of a shard that is done waits for a store that is out of reach."""


class StoreRecords(WritableFileSystem):
    """Prefect's result storage inside the store: `records/<key[:2]>/<key>.json`, one manifest a key.

    Reading raises unless the record has its checksum and every file that the manifest names exists at its recorded
    size, which Prefect counts as a cache miss: so a data file that was deleted or cut off is recomputed, and only that
    one. Records of ladm 0.1 before checksums were kept have none, and count without.
    """

    _block_type_name = "LADM store records"
    _block_type_slug = "ladm-store-records"

    uri: str

    # Prefect passes `_sync=True` to every call; without the parameter the commit would fail with a mere log line.
    def read_path(self, path: str, _sync: bool | None = None) -> bytes:  # type: ignore[override]
        """The record of a key, if its data is all there; `FileNotFoundError` otherwise."""
        store = Store(self.uri)
        content = unsealed(store.read_bytes(record_path(path)))
        manifest = manifest_of(content)
        if manifest.lacks_checksums() or not store.holds(manifest.all_files()):
            raise FileNotFoundError(f"{path}: a data file of this record is missing or cut off")
        return content

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> None:  # type: ignore[override]
        """Write a record whole. A server that is gone is waited for: Prefect would go on without the record.

        A disk is not: one that is full stays full.
        """
        store, record = Store(self.uri), sealed(content)
        give_up, pause = time.monotonic() + PATIENCE_SECONDS, 0.5
        while True:
            try:
                store.write_bytes(record_path(path), record)
                return
            except io_errors() as error:
                if store.local or not can_pass(error) or time.monotonic() > give_up:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 8.0)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the record of a job that was done in another one's task, as Prefect would write it itself."""
        metadata = {
            "storage_key": manifest.key,
            "expiration": None,
            "serializer": {"type": "json"},
            "prefect_version": prefect.__version__,
            "storage_block_id": None,
        }
        result = orjson.dumps(manifest.as_dict()).decode()
        self.write_path(manifest.key, orjson.dumps({"metadata": metadata, "result": result}))


@dataclass
class ContentKeyPolicy(CachePolicy):
    """Prefect cache policy: the key is the job's content key, nothing of the run, the code or the clock."""

    stage: Stage | None = None

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """The content key of the job that the task was called with."""
        assert self.stage is not None
        return self.stage.key(Job.from_dict(inputs["job"]))


def worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Retry what can pass, and nothing else. Workers that were lost are their cluster's to replace (`runners.py`).

    A plain function, since Prefect silently never retries with a partial or a callable object here.
    """
    return can_pass(state.data)


def do(stage: Stage, job: Job) -> list[Manifest]:
    """Do a job where the runner chose. By name, since a cluster's tasks are sent by value, and `doing` cannot be."""
    return doing.get()(stage, job)


def stage_task(stage: Stage, records: StoreRecords, retries: int, retry_seconds: float) -> Task[..., Any]:
    """The stage as a Prefect task of one parameter `job` (a dict), returning a manifest (a dict)."""

    def run(job: dict[str, Any]) -> dict[str, Any]:
        done, *together = do(stage, Job.from_dict(job))
        for manifest in together:
            records.write_manifest(manifest)
        if stage.name == OF_STAGE and len(done.shards) > 1:
            records.write_manifest(done)  # Prefect writes it when this returns; the notes must not be gone before
            FinishedShards(Store(records.uri), done.key).forget(len(done.shards))
        return done.as_dict()

    policy = ContentKeyPolicy(stage=stage)
    task = Task(
        run,
        name=stage.name,
        task_run_name=f"{stage.name} {{job[label]}}",
        cache_policy=policy,
        refresh_cache=False,
        persist_result=True,
        result_storage=records,
        result_serializer="json",
        retries=retries,
        retry_delay_seconds=exponential_backoff(backoff_factor=retry_seconds) if retries else None,
        retry_jitter_factor=0.5 if retries else None,
        retry_condition_fn=worth_retrying,
    )
    task.cache_policy = policy  # type: ignore[assignment]  # also where the user has caching off, for tasks of their own
    return task
