"""Scoring: a shard of windows becomes a shard of scores, by the attention of the calculator model.

The model is loaded once a process and only when a shard really has to be scored. A window whose score is not
finite is quarantined by name: it must never be ranked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ladm.tasks import progress
from ladm.tasks.job import Job, Outcome, QuarantineEntry, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.schema import MEASURED, SCORES
from ladm.tasks.scorers.calibration import Weights
from ladm.tasks.scorers.known_windows import OF_THE_PASS, KnownWindows
from ladm.tasks.scorers.ladm import LadmConfig, WindowScore
from ladm.tasks.scorers.loaded_model import calculator_for, resolved_scorer, text_reader
from ladm.tasks.scorers.registry import BesideConfig
from ladm.tasks.scorers.window_batches import in_passes
from ladm.tasks.stages import measure
from ladm.tasks.storage.store import Store, table_of

CARRIED = ["window_id", "doc_id", "domain", "window_index", "n_tokens", "doc_tokens", "doc_tokens_exact"]
UNKEYED = {"model", "device", "batch_tokens", "calibration", "beside"}


def score_key_config(config: LadmConfig) -> dict[str, Any]:
    """What scoring computes with, beside the weights of a calibration, which are a file that the job reads.

    The model counts by its digest, and where it runs does not count. `config` is what a calibration, if there is one,
    says it to be.
    """
    return resolved_scorer(config).model_dump(mode="json", exclude=UNKEYED)


def score(job: Job, store: Store, key: str) -> Outcome:
    """Score every window of one shard, in batches of windows of one length.

    Inputs: the shard of windows, if any of its documents are not to be scored, their list (`dedup.py`), and the file
    with a calibration's weights, if there is one. Counts are of the windows that are to be scored. The jobs of
    `environment["together"]` are done in the same pass. Windows that `environment["earlier"]` knows are taken from
    there, and no model is loaded where these are all.
    """
    others = [Job.from_dict(one) for one in job.environment.get("together", [])]
    measured = [measure.Columns(other) for other in others]
    known = KnownWindows(store, job, [key, *(columns.key for columns in measured)])
    progress.report("score", len(known))
    rows: dict[str, list[Any]] = {name: [] for name in SCORES.names}
    quarantine: list[QuarantineEntry] = []
    windows = len(known)
    for batch, scores in _scored(job, store, others, known) if known.left else ():
        windows += batch.num_rows
        carried = {name: batch[name].to_pylist() for name in dict.fromkeys([*CARRIED, *MEASURED.names])}
        for number, result in enumerate(scores):
            _add(rows, quarantine, carried, number, result, job.one("windows").path)
        for columns in measured:
            columns.add(carried, [result.beside[columns.name] for result in scores])
        progress.report("score", len(scores))
    table = known.completed(key, table_of(rows, SCORES))
    written = store.write_shard("score", key, table)
    return Outcome(
        counts=Counts(received=windows, kept=written.rows, quarantined=len(quarantine)),
        shards=store.kept(written),
        quarantine=quarantine,
        measures={"windows": windows, "tokens": pc.sum(table["n_tokens"]).as_py() or 0, **known.measures()},
        together=[(measure.STAGE, columns.job, columns.outcome(store, known)) for columns in measured],
    )


def _scored(
    job: Job, store: Store, others: list[Job], known: KnownWindows
) -> Iterator[tuple[pa.RecordBatch, list[WindowScore]]]:
    """The windows that are not known yet, and the scores of each, and what the others find."""
    from ladm.tasks.scorers.window_scores import score_windows  # noqa: PLC0415  (torch)

    beside = {other.config["scorer"]: other.config["settings"] for other in others}
    environment = {name: value for name, value in job.environment.items() if name not in OF_THE_PASS}
    config = LadmConfig.model_validate({**job.config, **environment, "beside": beside})
    given = [Weights.model_validate(orjson.loads(store.read_bytes(one.path))) for one in job.all("weights")]
    weights = given[0] if given else Weights()
    calculator, turns = calculator_for(config, job.identity[0], head=config.beside.head)
    text_of = _text_of(config.beside, config.model, others)

    def work(ids_BL: npt.NDArray[np.int64]) -> list[WindowScore]:
        return score_windows(calculator, config, ids_BL, weights, text_of)

    return in_passes(store, job, calculator, turns, config, work, known.ids)


def _text_of(beside: BesideConfig, model: str, others: list[Job]) -> Any:
    """What decodes token ids, where one of the others reads text: its job names the tokenizer."""
    digests = [other.identity[-1] for other in others if beside.needs_of(other.config["scorer"]).text]
    return text_reader(model, digests[0]) if digests else None


def _add(
    rows: dict[str, list[Any]],
    quarantine: list[QuarantineEntry],
    carried: dict[str, list[Any]],
    number: int,
    result: WindowScore,
    place: str,
) -> None:
    """Add a window's score to the rows, or to the quarantine if it is no number."""
    found = {"score": result.cds} | {f"{name} score": one for name, one in result.by_profile.items()}
    if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
        doc_id, window_id = carried["doc_id"][number], carried["window_id"][number]
        reason = f"the {wrong[0]} of window {window_id} is {found[wrong[0]]}"
        quarantine.append(QuarantineEntry(source=place, line=None, reason=reason, doc_id=doc_id))
        return
    for name in CARRIED:
        rows[name].append(carried[name][number])
    rows["cds"].append(result.cds)
    rows["cds_per_layer"].append(result.cds_per_layer)
    rows["layers"].append(result.layers)
    for name in ("dependency", "order"):
        rows[f"{name}_score"].append(result.by_profile.get(name))
    rows["coherence"].append(result.coherence or None)


STAGE = Stage(name="score", version="4", compute=score, roles=("windows", "drops", "weights"))
