"""What a run would cost: its jobs, what it has to score, time, money and room; nothing of it is done (`ladm plan`)."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ladm.flows.config import RunConfig
from ladm.flows.dag import asked
from ladm.flows.dag.plan import Plan
from ladm.flows.dag.preflight import preflight
from ladm.flows.dag.stages import MODEL_STAGES, TABLE, rows_of_stage
from ladm.flows.forecast.by_hand import done_by_hand
from ladm.flows.forecast.known_texts import KnownTexts
from ladm.flows.forecast.reasons import reasons_of
from ladm.flows.forecast.sample import Sampled, sample_of_files, sample_of_shards, smaller
from ladm.flows.forecast.speeds import Speeds, past_speeds
from ladm.flows.forecast.survey import Survey, survey
from ladm.tasks.evaluation.fit import layers_allowed
from ladm.tasks.evaluation.scores import Setting
from ladm.tasks.manifest import Shard
from ladm.tasks.scorers.loaded_model import resolved_scorer
from ladm.tasks.stages.contrast import DOCUMENTS_A_SHARD
from ladm.tasks.storage.store import Store

PROBED_WINDOWS = 3
"""Windows that are scored for a speed where no past run tells one."""
WINDOWS_A_DOCUMENT = 5.5
"""That a document gives to calibrate by: a whole one, four broken ones, and of the sample one of junk."""
TAKING_OVER = frozenset(row.stage.name for row in TABLE if row.takes_over)
"""Stages that do not find once more what an earlier run found of a window."""


@dataclass(frozen=True)
class StageForecast:
    """What a run would do of one stage."""

    stage: str
    cached: int
    """Jobs whose result the store has."""
    todo: int
    """Jobs to be done."""
    records: int
    """Documents or windows of the jobs to be done."""
    seconds: float
    """That the jobs would take, all together."""
    bytes: int
    """That they would write."""


@dataclass(frozen=True)
class Forecast:
    """What a run would do and cost."""

    store: str
    until: str
    stages: list[StageForecast]
    documents: int
    """Documents to be read or cut."""
    windows: int
    """Windows to be scored."""
    tokens: int
    """Of these windows."""
    seconds: float
    """That the run would take."""
    gpu_hours: float | None
    """None where no GPU scores."""
    cost: float | None
    """The time at the price that was given; None where none was."""
    bytes: int
    """That it would write."""
    speeds_from: str
    """What the time is told by: `past runs`, `probe`, or `nothing` where no time can be told."""
    reasons: list[str]
    """Why there is something to do, in words."""

    def as_json(self) -> dict[str, Any]:
        """The forecast as `ladm plan --json` prints it."""
        return dataclasses.asdict(self)


def forecast(
    config: RunConfig, until: str = "export", tell: Callable[[str], None] | None = None, rate: float | None = None
) -> Forecast:
    """Tell what a run would do and cost. Nothing is submitted, and nothing is written but what a run checks first.

    Args:
        config: The run's configuration.
        until: The last stage.
        tell: Gets a line of text when something slow happens.
        rate: The price of an hour.

    Raises:
        UserError: The configuration cannot run.
    """
    plan = preflight(config, until, tell)
    found = survey(plan)
    sampled = _sampled(plan, found)
    speeds = past_speeds(Store(plan.config.store), plan.config)
    probed: dict[str, float] = {}
    windows = sampled.amounts["windows"] + sum(shard.rows for shard in found.unscored)
    if windows and not speeds.seconds.get("score") and "score" in plan.stages:
        probed = probe(plan, found)
    return put_together(plan, found, sampled, speeds, probed, rate)


def _sampled(plan: Plan, found: Survey) -> Sampled:
    """What is expected of the files that are not read, and of the documents that are not cut."""
    known = KnownTexts(Store(plan.config.store), found)
    read, cut = sample_of_files(plan, found.unread, known), sample_of_shards(plan, found.uncut)
    read.amounts.update(cut.amounts)
    read.texts += cut.texts
    for of_stage, more in ((read.seconds, cut.seconds), (read.written, cut.written)):
        for stage, number in more.items():
            of_stage[stage] = of_stage.get(stage, 0) + number  # type: ignore[assignment]
    return read


def put_together(
    plan: Plan, found: Survey, sampled: Sampled, speeds: Speeds, probed: dict[str, float], rate: float | None
) -> Forecast:
    """The forecast, from what is left, what a sample holds, and how fast it goes.

    Args:
        plan: The run.
        found: What is left of it.
        sampled: What is expected of unread sources.
        speeds: Of the store's past runs.
        probed: Stage → seconds a record, where no past run tells it.
        rate: The price of an hour.
    """
    unscored = sum(shard.rows for shard in found.unscored)
    cut = unscored + sampled.amounts["windows"]
    windows = unscored + max(0, sampled.amounts["windows"] - sampled.amounts["known"] - found.known)
    there = sum(done.manifest.measures.get("windows", 0) for done in found.record.of("score"))
    stages: list[StageForecast] = []
    for stage in plan.stages:
        todo = found.todo[stage]
        records = _records(stage, todo, sampled, cut, there) if todo else 0
        taken_over = 1 - windows / cut if cut and stage in TAKING_OVER else 0.0
        seconds = records * (1 - taken_over) * _seconds(stage, sampled, speeds, probed)
        if stage == "scan" and not seconds:
            seconds = records * _seconds("score", sampled, speeds, probed)  # a pass of as many layers
        size = round(records * _written(stage, sampled, speeds))
        stages.append(StageForecast(stage, found.cached[stage], todo, records, round(seconds, 3), size))
    busy = sum(one.seconds for one in stages)
    scoring = sum(one.seconds for one in stages if one.stage in MODEL_STAGES)
    # Past runs that did not score, or not like this one, do not tell how much of it goes on side by side.
    total = busy * speeds.wall if speeds.runs and not probed else busy
    on_gpu = resolved_scorer(plan.scorer).device.startswith("cuda") if "score" in plan.stages else False
    share = total / busy if busy else 0.0
    return Forecast(
        store=plan.config.store,
        until=plan.until,
        stages=stages,
        documents=sampled.amounts["documents"],
        windows=windows if "score" in plan.stages else 0,
        tokens=windows * plan.config.window.length,
        seconds=round(total, 3),
        gpu_hours=round(scoring * share / 3600, 4) if on_gpu else None,
        cost=None if rate is None else round(rate * total / 3600, 2),
        bytes=sum(one.bytes for one in stages),
        speeds_from=_told_by(speeds, sampled, probed),
        reasons=reasons_of(plan, found),
    )


def _told_by(speeds: Speeds, sampled: Sampled, probed: dict[str, float]) -> str:
    if speeds.runs and not probed:
        return "past runs"
    return "probe" if probed or sampled.texts else "nothing"


def _records(stage: str, todo: int, sampled: Sampled, windows: int, there: int) -> int:
    """What a stage's jobs that are to be done get in all."""
    row = rows_of_stage(stage)[0]
    if stage == "scan":
        return round(todo * DOCUMENTS_A_SHARD * WINDOWS_A_DOCUMENT)
    if row.scope == "run":
        return windows + there
    return windows if row.units[0] == "windows" else sampled.amounts["documents"]


def _seconds(stage: str, sampled: Sampled, speeds: Speeds, probed: dict[str, float]) -> float:
    """Of one record."""
    if (known := speeds.seconds.get(stage)) is not None:
        return known
    if stage in probed:
        return probed[stage]
    return _of_sample(stage, sampled.seconds, sampled)


def _written(stage: str, sampled: Sampled, speeds: Speeds) -> float:
    """Bytes of one record."""
    known = speeds.written.get(stage)
    return _of_sample(stage, sampled.written, sampled) if known is None else known


def _of_sample(stage: str, of_stage: dict[str, float] | dict[str, int], sampled: Sampled) -> float:
    """What the sample took for a record: its texts were one part of all that are expected."""
    if not sampled.texts or not sampled.amounts["documents"]:
        return 0.0
    times = sampled.amounts["bytes"] / sampled.texts
    return of_stage.get(stage, 0) * times / sampled.amounts["documents"]


def probe(plan: Plan, found: Survey) -> dict[str, float]:
    """Score a few windows of the sources: stage → seconds a window. The model is loaded for it."""
    plan = not_calibrating(plan)
    length = plan.config.window.length
    store = Store(plan.config.store)
    texts = _first_texts(store, found.uncut)
    for file in itertools.islice(itertools.chain.from_iterable(found.unread), 0 if texts else 16):
        texts += _texts_of(plan, file.uri)
    if not texts:  # all windows are cut
        texts = _first_texts(store, found.record.shards("ingest"))
    joined = "\n".join(texts)[: 12 * length * PROBED_WINDOWS]
    pieces = [joined[start : start + 12 * length] for start in range(0, len(joined), 12 * length)]
    with tempfile.TemporaryDirectory(prefix="ladm-plan-") as folder:
        lines = [orjson.dumps({"text": piece, "domain": "probe"}) for piece in pieces]
        (Path(folder) / "0.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        one = smaller(plan, folder, "score")
        taken: dict[str, float] = {}
        for _ in range(2):  # the first loads the model, and is not counted
            record = done_by_hand(one)
            taken = {}
            for done in record.done:
                if done.manifest.counts.received and rows_of_stage(done.manifest.stage)[0].units[0] == "windows":
                    stage = done.manifest.stage
                    taken[stage] = taken.get(stage, 0.0) + done.manifest.seconds / done.manifest.counts.received
            one = dataclasses.replace(one, config=one.config.model_copy(update={"store": f"{folder}/again"}))
    return taken


def not_calibrating(plan: Plan) -> Plan:
    """The plan, scored by the layers that its own calibration would read, where it has none yet."""
    if plan.calibration or not asked.calibrates(plan.config):
        return plan
    scorer, length = plan.config.scorer, plan.config.window.length
    layers = layers_allowed(Setting(scorer, length, tuple(plan.layers), plan.n_layers))
    config = plan.config.model_copy(update={"scorer": scorer.model_copy(update={"layers": layers})})
    return dataclasses.replace(plan, config=config, layers=list(layers))


def _first_texts(store: Store, shards: Sequence[Shard]) -> list[str]:
    """The first texts of the first of some shards of documents; none where there is no shard."""
    texts: list[str] = next(store.shard_batches(shards[0], 8, ["text"]))["text"].to_pylist() if shards else []
    return texts


def _texts_of(plan: Plan, uri: str) -> list[str]:
    """The first texts of a file."""
    from ladm.tasks.reading.readers import Record, UnreadableFile, read_records  # noqa: PLC0415
    from ladm.tasks.stages.ingest import open_source  # noqa: PLC0415

    listed = next(one for one in plan.files if one.file.uri == uri)
    try:
        with open_source(listed.file) as file:
            records = itertools.islice(read_records(file, uri, listed.config), 8)
            return [record.text for record in records if isinstance(record, Record)]
    except UnreadableFile:
        return []
