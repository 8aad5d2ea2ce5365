"""Scanning: windows of the contrast set become measurements of attention, from which every formula can be worked out.

One forward pass a window, over all layers that see the whole window: the span-to-span attention (PFS) of each layer
and head that the published formula needs, with both strides halved as well; what the printed formula needs; and the
profile of attention by distance. Scores, layer choices and calibrations are arithmetic on these, done many times over
without the model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks import progress
from tasks.job import Job, Outcome, Stage
from tasks.manifest import Counts, Shard
from tasks.score import calculator_for, text_reader
from tasks.scorers.beside import gather
from tasks.scorers.ladm import LadmConfig, SpanPlan, scoring_plan
from tasks.scorers.profile import FEATURES, profile_features, profile_plan
from tasks.store import Store, table_of

MEASUREMENTS = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("base", pa.string(), nullable=False),  # doc_id of the whole window's document
        pa.field("domain", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("half", pa.string(), nullable=False),
        pa.field("documents", pa.list_(pa.string()), nullable=False),
        pa.field("pfs", pa.list_(pa.float32()), nullable=False),  # [layers, heads, pairs of `fine_plan`]
        pa.field("paper", pa.list_(pa.float32()), nullable=False),  # [layers, pairs of the paper's plan], mean of heads
        pa.field("profile", pa.list_(pa.float32()), nullable=False),  # [layers, heads, features]
        pa.field("beside", pa.map_(pa.string(), pa.float64())),  # scores of the scorers beside ladm, by name
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)
"""scan/: one row a window of the contrast set."""


NOT_ASKED = "of a kind that was not asked for"


@dataclass(frozen=True)
class Measurement:
    """What one window's pass found.

    Dimensions: N layers, H heads, P pairs of `fine_plan`, R pairs of the paper's plan, F features of the profile.
    """

    base: str
    domain: str
    kind: str
    half: str
    documents: tuple[str, ...]
    pfs_nhp: npt.NDArray[np.float32]
    paper_nr: npt.NDArray[np.float32]
    profile_nhf: npt.NDArray[np.float32]
    beside: dict[str, float]
    """Scores of the scorers beside `ladm`, where they were asked for."""
    seconds: float


def paper_config(config: LadmConfig) -> LadmConfig:
    """The printed formula with the configuration's span."""
    return LadmConfig(formula="paper", span=config.span)


def fine_plan(config: LadmConfig, length: int) -> SpanPlan:
    """The published formula with both strides halved where they are even: its pairs hold those of the full strides."""
    return scoring_plan(halved(config), length)


def halved(config: LadmConfig) -> LadmConfig:
    """The configuration with both strides halved; an odd stride stays."""
    strides = {name: value // 2 for name in ("d_afs", "d_cds") if (value := getattr(config, name)) % 2 == 0}
    return config.model_copy(update={**strides, "formula": "published"})


def pair_places(plan: SpanPlan, fine: SpanPlan) -> list[int]:
    """Where each pair of `plan` stands among those of `fine`."""
    where: dict[tuple[int, int], int] = {}
    for query in fine.queries:
        for key in query.key_starts:
            where[query.start, key] = len(where)
    return [where[query.start, key] for query in plan.queries for key in query.key_starts]


def scan(job: Job, store: Store, key: str) -> Outcome:
    """Measure the windows of one shard of the contrast set that are of the kinds asked for."""
    from tasks.scorers.attention import one_pass  # noqa: PLC0415  (torch; not needed when all is cached)
    from tasks.scorers.calculator import token_ids  # noqa: PLC0415

    (shard,) = job.inputs
    layers = job.environment["layers"]
    environment = {name: job.environment[name] for name in ("model", "device")}
    kinds = job.config["kinds"]
    scorer = {name: value for name, value in job.config.items() if name != "kinds"}
    config = LadmConfig.model_validate({**scorer, **environment})
    text_of = text_reader(config.model, job.identity[1]) if config.beside.text else None
    calculator, lock = calculator_for(config, job.identity[0], head=True)
    windows = [row for row in store.read_shard(shard).to_pylist() if row["kind"] in kinds]
    rows: dict[str, list[Any]] = {name: [] for name in MEASUREMENTS.names}
    for window in windows:
        ids_BL = token_ids(calculator, np.array([window["input_ids"]]))
        length = ids_BL.shape[1]
        fine, paper, profile = (
            fine_plan(config, length),
            scoring_plan(paper_config(config), length),
            profile_plan(length),
        )
        wanted = {plan: layers for plan in (fine, paper, profile) if plan.queries}
        with lock:
            started = time.perf_counter()
            needs = config.beside.needs(length)
            passed = one_pass(calculator, wanted, ids_BL, needs.targets)
            seconds = time.perf_counter() - started
        for name in ("window_id", "base", "domain", "kind", "half", "documents"):
            rows[name].append(window[name])
        # one_pass gives [layers, windows, heads, pairs]; there is one window.
        rows["pfs"].append(passed.pfs[fine][:, 0].ravel())
        rows["paper"].append(passed.pfs[paper][:, 0].mean(axis=1).ravel() if paper.queries else [])
        rows["profile"].append(profile_features(profile, passed.pfs[profile])[0].ravel())
        rows["beside"].append(None)
        if config.beside.names:
            plan = scoring_plan(config, length)
            pfs_NBP = passed.pfs[fine].mean(axis=2)[:, :, pair_places(plan, fine)]
            with lock:
                (evidence,) = gather(calculator, needs, plan, ids_BL.numpy(), layers, pfs_NBP, passed.log_p, text_of)
            rows["beside"][-1] = list(config.beside.scores(evidence).items())
        rows["seconds"].append(seconds)
        progress.report("scan", 1)
    left = shard.rows - len(windows)
    written = store.write_shard("scan", key, table_of(rows, MEASUREMENTS))
    return Outcome(
        counts=Counts(received=shard.rows, kept=written.rows, dropped={NOT_ASKED: left} if left else {}),
        shards=store.kept(written),
        measures={"windows": written.rows, "tokens": sum(len(window["input_ids"]) for window in windows)},
    )


def read_measurements(store: Store, shards: list[Shard], n_layers: int) -> list[Measurement]:
    """The measurements of some shards, in their order; `n_layers` layers were measured."""
    found = []
    for shard in shards:
        for row in store.read_shard(shard).to_pylist():
            profile = np.array(row["profile"], dtype=np.float32)
            heads = profile.size // n_layers // len(FEATURES)
            found.append(
                Measurement(
                    base=row["base"],
                    domain=row["domain"],
                    kind=row["kind"],
                    half=row["half"],
                    documents=tuple(row["documents"]),
                    pfs_nhp=np.array(row["pfs"], dtype=np.float32).reshape(n_layers, heads, -1),
                    paper_nr=np.array(row["paper"], dtype=np.float32).reshape(n_layers, -1),
                    profile_nhf=profile.reshape(n_layers, heads, -1),
                    beside=dict(row.get("beside") or []),
                    seconds=row["seconds"],
                )
            )
    return found


STAGE = Stage(name="scan", version="1", compute=scan)
