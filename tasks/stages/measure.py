"""Measuring: a shard of windows becomes one column, or a few, of each window, by one of the scorers beside `ladm`.

Every scorer's columns are a result of their own, with a key of their own, so that adding one does not make the others
again. What needs the model is measured in the pass that scores the same windows, where that is still to be made: the
job of the score then holds these jobs (`environment["together"]`), and gives what they would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ladm.tasks import progress
from ladm.tasks.job import Job, Outcome, QuarantineEntry, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.schema import MEASURED
from ladm.tasks.scorers.evidence import Needs
from ladm.tasks.scorers.known_windows import OF_THE_PASS, KnownWindows
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.loaded_model import calculator_for, text_reader
from ladm.tasks.scorers.registry import columns_of, distribution_of, gather_without_model, version_of
from ladm.tasks.scorers.window_batches import batches_to_score, in_passes
from ladm.tasks.storage.store import Store

_SPANS = {
    *("formula", "span", "d_afs", "d_cds"),
    *("paper_skip_nearest", "paper_first_key_span", "paper_first_query_span"),
}
ROWS_WITHOUT_MODEL = 64


def measure_key_config(scorer: LadmConfig, name: str, needs: Needs) -> dict[str, Any]:
    """What one scorer's columns are computed with: its settings, and of the model's pass what their last bit hangs on.

    That is the grid of spans, too: by it attention is cut into blocks, and so rounded, for whoever shares the pass.
    """
    key = {"scorer": name, "settings": getattr(scorer.beside, name).model_dump(mode="json", exclude_none=True)}
    if (version := version_of(name)) > 1:
        key["version"] = version
    if distribution := distribution_of(name):
        key["distribution"] = distribution
    return key | (scorer.model_dump(mode="json", include=_SPANS | {"dtype"}) if needs.model else {})


def scorer_of(job: Job) -> LadmConfig:
    """The configuration that a job's scorer runs under, with that scorer beside it and no other."""
    own = {"scorer", "settings", "version", "distribution"}
    settings = {name: value for name, value in job.config.items() if name not in own}
    beside = {job.config["scorer"]: job.config["settings"]}
    environment = {name: value for name, value in job.environment.items() if name not in OF_THE_PASS}
    return LadmConfig.model_validate({**settings, **environment, "beside": beside})


class Columns:
    """The rows of one scorer's shard, as they come; a window whose value is no number is quarantined."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.key = STAGE.key(job)
        self.name = str(job.config["scorer"])
        self.fields = columns_of(self.name)
        self.ids: dict[str, list[Any]] = {name: [] for name in MEASURED.names}
        self.values: dict[str, list[Any]] = {field.name: [] for field in self.fields}
        self.quarantine: list[QuarantineEntry] = []
        self.windows = 0

    def add(self, carried: dict[str, list[Any]], found: Sequence[dict[str, Any]]) -> None:
        """Add some windows.

        Args:
            carried: The columns of `MEASURED` of the windows.
            found: Of each window, the scorer's columns by name.
        """
        for number, values in enumerate(found):
            self.windows += 1
            wrong = [name for name in self.values if not np.isfinite(np.asarray(values[name], np.float64)).all()]
            if wrong:
                window_id, doc_id = carried["window_id"][number], carried["doc_id"][number]
                reason = f"the {wrong[0]} of window {window_id} is {values[wrong[0]]}"
                place = self.job.one("windows").path
                self.quarantine.append(QuarantineEntry(source=place, line=None, reason=reason, doc_id=doc_id))
                continue
            for name, column in self.ids.items():
                column.append(carried[name][number])
            for name, column in self.values.items():
                column.append(values[name])

    def outcome(self, store: Store, known: KnownWindows | None = None) -> Outcome:
        """Write the shard, and tell what became of the windows; of those that are `known`, from an earlier shard."""
        schema = pa.schema([*MEASURED, *self.fields])
        columns = {**self.ids, **self.values}
        table = pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema)
        if known:
            table = known.completed(self.key, table)
        written = store.write_shard("measure", self.key, table)
        windows = self.windows + len(known or ())
        return Outcome(
            counts=Counts(received=windows, kept=written.rows, quarantined=len(self.quarantine)),
            shards=store.kept(written),
            quarantine=self.quarantine,
            measures={"windows": windows, **(known.measures() if known else {})},
        )


def measure(job: Job, store: Store, key: str) -> Outcome:
    """Measure every window of one shard by one scorer.

    Inputs: the shard of windows and, if any of its documents are not to be scored, their list. Counts are of windows.
    Those that `environment["earlier"]` knows are taken from there.
    """
    config = scorer_of(job)
    columns = Columns(job)
    known = KnownWindows(store, job, [key])
    tokenizer_digest = job.identity[-1] if config.beside.reads_text else None
    text_of = text_reader(config.model, tokenizer_digest)
    if not config.beside.model:
        for batch, ids_BL in batches_to_score(store, job, ROWS_WITHOUT_MODEL, known.ids):
            found = [
                config.beside.measured(evidence) for evidence in gather_without_model(config.beside, ids_BL, text_of)
            ]
            columns.add(_carried(batch), [one[columns.name] for one in found])
        return columns.outcome(store, known)
    progress.report("measure", len(known))  # only of what the model measures are windows expected
    if not known.left:
        return columns.outcome(store, known)
    from ladm.tasks.scorers.window_scores import measure_windows  # noqa: PLC0415  (torch)

    calculator, turns = calculator_for(config, job.identity[0], head=config.beside.head)
    work = partial(measure_windows, calculator, config, text_of=text_of)
    for batch, found in in_passes(store, job, calculator, turns, config, work, known.ids):
        columns.add(_carried(batch), [one[columns.name] for one in found])
        progress.report("measure", len(found))
    return columns.outcome(store, known)


def _carried(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    return {name: batch[name].to_pylist() for name in MEASURED.names}


STAGE = Stage(name="measure", version="1", compute=measure, roles=("windows", "drops"))
