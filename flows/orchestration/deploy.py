"""The nightly refresh: `ladm serve` runs it from this process by a schedule, `ladm deploy` hands it to a work pool.

Either way Prefect's server keeps the schedule and starts one refresh at a time: one that is still going when the next
is due makes that one wait. The flow's one parameter is the run's own configuration, so Prefect's UI shows it as a form.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ladm.flows.config import RunConfig
from ladm.flows.orchestration.cancelling import hangup
from ladm.tasks.errors import ConfigError, UserError
from ladm.tasks.exporters.tokens import TokenExport
from ladm.tasks.models.resolve import EMBEDDED
from ladm.tasks.reading.readers import SourceConfig

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

PATIENCE = 10.0
"""Seconds that a process which was told to stop gives Prefect's server to pause its schedule."""


def nightly(config: RunConfig, cron: str | None, timezone: str, name: str, pool: str | None = None) -> RunnerDeployment:
    """The deployment of `curate` with a configuration and a schedule.

    Args:
        config: The run's configuration; local paths in it are made absolute, since a worker runs elsewhere.
        cron: When to run, as cron says it; None: only when somebody starts it.
        timezone: IANA name of the zone that `cron` means.
        name: The deployment's name; deploying under the same name again replaces it.
        pool: The work pool; None for a served deployment.

    Raises:
        ConfigError: `cron` or `timezone` is none.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy  # noqa: PLC0415
    from prefect.deployments.runner import RunnerDeployment  # noqa: PLC0415
    from prefect.types.entrypoint import EntrypointType  # noqa: PLC0415

    from ladm.flows.dag.curate import curate  # noqa: PLC0415

    found: RunnerDeployment = RunnerDeployment.from_flow(
        curate,
        name=name,
        schedules=[_schedule(cron, timezone)] if cron else [],
        # what was left out stays left out: a calibration may say it, and the form in Prefect's UI shows the defaults
        parameters={"config": anywhere(config).model_dump(mode="json", exclude_unset=True)},
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
        entrypoint_type=EntrypointType.MODULE_PATH,
        work_pool_name=pool,
        description="Refresh the corpus: does what changed since the last run, and ranks and exports anew.",
        tags=["ladm"],
        paused=False,  # a served one pauses when it stops; the next start must go on
    )
    return found


def anywhere(config: RunConfig) -> RunConfig:
    """The configuration with local paths absolute, so that it means the same in any working folder."""
    changes: dict[str, Any] = {"store": _absolute(config.store), "sources": _all_absolute(config.sources)}
    if config.decontaminate:
        against = _all_absolute(config.decontaminate.against)
        changes["decontaminate"] = config.decontaminate.model_copy(update={"against": against})
    scorer: dict[str, Any] = {}
    if config.scorer.calibration:
        scorer["calibration"] = _absolute(config.scorer.calibration)
    if (model := _model_from_anywhere(config.scorer.model)) != config.scorer.model:
        scorer["model"] = model
    if "export" in config.model_fields_set:  # or else what no user has written would be deployed as entries of nothing
        changes["export"] = list(map(_export_from_anywhere, config.export))
    if scorer:
        changes["scorer"] = config.scorer.model_copy(update=scorer)
    return config.model_copy(update=changes)


def _export_from_anywhere(one: Any) -> Any:
    """An entry of `export` that says its format, also where none was written, and a tokenizer found from anywhere."""
    changes = {"format": one.format}
    if isinstance(one, TokenExport) and one.tokenizer is not None:
        changes["tokenizer"] = _model_from_anywhere(one.tokenizer)
    return one.model_copy(update=changes)


def _model_from_anywhere(reference: str) -> str:
    """A model's reference, absolute where it is a path: else it is the name of one elsewhere."""
    is_path = reference != EMBEDDED and Path(_at_home(reference)).exists()
    return _absolute(reference) if is_path else reference


def _all_absolute(sources: list[SourceConfig]) -> list[SourceConfig]:
    return [source.model_copy(update={"uri": _absolute(source.uri)}) for source in sources]


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path.cwd() / _at_home(uri))


def _at_home(path: str) -> str:
    """A path with what `~` stands for; as it is, where that is nobody."""
    return os.path.expanduser(path)  # noqa: PTH111  (of `~nobody` a Path would make an error)


def _schedule(cron: str, timezone: str) -> Any:
    from prefect.schedules import Cron  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"--timezone: {timezone!r} is not a time zone; give one like Europe/Berlin, or UTC") from None
    from prefect.client.schemas.schedules import CronSchedule  # noqa: PLC0415

    try:
        CronSchedule(cron=cron, timezone=timezone)
    except (ValidationError, ValueError):
        raise ConfigError(f'--cron: {cron!r} is not a cron schedule; give one like "0 2 * * *", daily at two') from None
    return Cron(cron, timezone=timezone)


def serve(deployment: RunnerDeployment) -> None:
    """Run the deployment's scheduled runs from this process, one at a time, until SIGINT or SIGTERM.

    Its schedule pauses when this process stops.
    """
    from prefect.runner import Runner  # noqa: PLC0415

    ending: list[Callable[[], object]] = []

    class Served(Runner):
        """Stops at SIGTERM as it does at SIGINT: its own way loses the pausing and prints a traceback."""

        def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
            ending[0]()

        async def _pause_schedules(self) -> None:
            logging.disable()  # of a server that is gone Prefect logs tracebacks; `pausing` says it in a line
            await pausing(super()._pause_schedules(), PATIENCE)  # type: ignore[no-untyped-call]

    runner = Served(limit=1, pause_on_shutdown=True)
    runner.add_deployment(deployment)
    for number in hangup():
        signal.signal(number, lambda *_: runner.handle_sigterm())

    async def until_ended() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        # Not by a SIGINT to itself, which a shell without job control has its background processes ignore.
        ending.append(lambda: loop.call_soon_threadsafe(task.cancel))
        await runner.start()

    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(until_ended())


async def pausing(paused: Awaitable[None], patience: float) -> None:
    """Pause schedules, or say why they are not: the server may be gone, and Prefect would wait for it for minutes."""
    try:
        await asyncio.wait_for(paused, patience)
    except Exception as error:
        why = f"its server did not answer for {patience:g} s" if isinstance(error, TimeoutError) else str(error)
        note = "the next start of ladm serve goes on with it, and until then it makes runs that are late"
        print(f"ladm: the schedule was not paused ({why}); {note}", file=sys.stderr)


@contextlib.contextmanager
def ending_at_sigterm() -> Iterator[None]:
    """Until the block ends, SIGTERM ends the process, even as the first one of a container or where it was blocked.

    SIGHUP does, too, but for what `nohup` started.
    """

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, *hangup())}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deploy(deployment: RunnerDeployment, pool: str) -> bool:
    """Hand the deployment to a work pool, making a process pool of that name where there is none.

    Returns:
        Whether it is paused, as it was before.

    Raises:
        UserError: What listens there is no Prefect server, or it refuses.
    """
    import httpx  # noqa: PLC0415
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.client.schemas.actions import WorkPoolCreate  # noqa: PLC0415
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException  # noqa: PLC0415

    try:
        with get_client(sync_client=True) as client:
            if problem := client.api_healthcheck():
                raise problem
            try:
                client.read_work_pool(pool)
            except ObjectNotFound:
                with contextlib.suppress(ObjectAlreadyExists):  # made by another at the same moment
                    client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            paused = keep_pause(deployment, client)
        deployment.apply()
    except (httpx.HTTPError, PrefectException, RuntimeError, ValueError) as error:
        raise UserError(f"PREFECT_API_URL: the server there does not take the deployment: {error}") from None
    return paused


def keep_pause(deployment: RunnerDeployment, client: Any) -> bool:
    """Leave a deployment paused that is paused on the server, and a schedule that is; whether there was a pause.

    Args:
        deployment: About to be handed over.
        client: Asks the server.
    """
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415

    try:
        before = client.read_deployment_by_name(f"{deployment.flow_name}/{deployment.name}")
    except ObjectNotFound:
        return False
    deployment.paused = bool(before.paused)
    resting = bool(before.schedules) and not any(schedule.active for schedule in before.schedules)
    for schedule in deployment.schedules or [] if resting else []:
        schedule.active = False
    return bool(before.paused or (resting and deployment.schedules))
