"""What a deployed run shows in Prefect's UI: the progress of scoring while it goes on, its stages and its report."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from ladm.flows.console import READING, Console
from ladm.flows.console import account as in_words_of
from ladm.flows.ending import ending
from ladm.flows.orchestration.report_links import BASE, report_link
from ladm.flows.runs.changes import CHANGES, in_words
from ladm.flows.runs.record import RunRecord
from ladm.tasks.manifest import Counts
from ladm.tasks.printable import printable
from ladm.tasks.storage.store import Store

EVERY_SECONDS = 5.0
"""Between two updates of the progress, so that the server is not kept busy by it."""
LISTED = 50
"""Files of each kind of change, and failures, that the artifact names; `run.json` names all."""


class ArtifactConsole(Console):
    """A console that shows nothing here and reports the windows scored to Prefect."""

    def __init__(self) -> None:
        super().__init__(None)
        self._artifact: UUID | None = None
        self._expected = self._scored = 0
        self._told = 0.0
        self._lock = threading.Lock()
        self._log = _log_of_the_run()

    def say(self, text: str) -> None:
        """One line, in the flow run's log."""
        self._log.warning(text)

    def failed(self, stage: str, label: str, reason: str) -> None:
        """A job failed for good."""
        self._log.error("%s failed: %s: %s", stage, printable(label, 500), printable(reason, 2000))

    def expect_windows(self, stage: str, windows: int) -> None:
        """So many more windows are to be scored."""
        with self._lock:
            self._expected += windows
            if self._artifact is None and self._expected:
                with _never_in_the_way():
                    created: Any = create_progress_artifact(0.0, key="ladm-scoring", description="windows scored")
                    self._artifact = created

    def advance(self, stage: str, units: int) -> None:
        """So many windows of the shard at hand are scored, or so many bytes of source files are read."""
        if stage == READING:
            self.read.advance(units)
        else:
            self._tell(units)

    def _say_read(self, text: str) -> None:
        self._log.info(text)

    def _tell(self, windows: int) -> None:
        with self._lock:
            self._scored += windows
            if time.monotonic() - self._told > EVERY_SECONDS:
                self._update()

    def close(self) -> None:
        """Tell what the last updates left out."""
        with self._lock:
            self._update()

    def _update(self) -> None:
        if self._artifact is None:
            return
        self._told = time.monotonic()
        share = 100.0 * min(1.0, self._scored / max(1, self._expected))
        description = f"{self._scored:,} of {self._expected:,} windows scored"
        with _never_in_the_way():
            update_progress_artifact(self._artifact, share, description)


def _log_of_the_run() -> Any:
    """The log that the flow run's page shows; that of this process alone where there is no flow run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("ladm")


def tell_results(record: RunRecord, account: dict[str, Any]) -> None:
    """The run's table of stages, its notices, where its results are and what changed, as artifacts of the flow run.

    Args:
        record: The run.
        account: The same as it stands in `run.json`.
    """
    rows, refresh = [], account["refresh"]
    for stage in record.plan.stages:
        summary = record.stage_summary(stage)
        counts = Counts(
            received=summary["in"],
            kept=summary["kept"],
            dropped=summary["dropped"],
            quarantined=summary["quarantined"],
        )
        states = {name: summary[name] for name in ("run", "cached", "failed")}
        rows.append({"stage": stage, **states, "records": in_words_of(counts), "seconds": summary["seconds"]})
    folder = f"{record.plan.config.store.rstrip('/')}/runs/{record.run_id}"
    lines = [f"# Run {record.run_id}: {record.status}", "", f"Results: `{folder}`", ""]
    if refresh:
        lines += [in_words(refresh), ""]
        lines += [
            f"- {change}: `{printable(uri, 500)}`" for change in CHANGES[:3] for uri in refresh[change]["uris"][:LISTED]
        ]
        lines.append("")
    failures = record.failures
    lines += [
        f"- **failed**: {one.stage} `{one.label}` of `{printable(one.source, 500)}`: {one.error}"
        for one in failures[:LISTED]
    ]
    if len(failures) > LISTED:
        lines.append(f"- and {len(failures) - LISTED} more")
    lines += [f"- notice: {_code(notice, 1000)}" for notice in account["notices"]]
    told = ending(account)
    if told:
        lines += ["", "```", *told, "```"]
    with _never_in_the_way():
        create_table_artifact(rows, key="ladm-stages", description=f"run {record.run_id}: {record.status}")
        create_markdown_artifact("\n".join(lines), key="ladm-run", description="where the results are, what changed")


def tell_report(record: RunRecord) -> None:
    """The report of a completed run: written into the store, its gist as an artifact of the flow run, with a link."""
    from ladm.flows.report.facts import collect  # noqa: PLC0415
    from ladm.flows.report.markdown import in_markdown  # noqa: PLC0415
    from ladm.flows.report.page import write_report  # noqa: PLC0415  (matplotlib; a run that failed needs none)

    store, run_id = record.plan.config.store, record.run_id
    with _never_in_the_way():
        where = write_report(store, run_id, tell=_log_of_the_run().info)
        lines = [f"# Report of run {run_id}", "", *_way_to_report(where, store, run_id), ""]
        lines.append(in_markdown(collect(Store(store), record.as_json())))
        create_markdown_artifact("\n".join(lines), key="ladm-report", description=f"report of run {run_id}")


def _way_to_report(where: str, store: str, run_id: str) -> list[str]:
    """How to open the whole report: a link that a browser follows, or else what to do."""
    if link := report_link(store, run_id):
        return [f"[Open the whole report]({link})", "", f"It lies in {_code(where, 2000)}."]
    if "://" in where:
        place = f"The whole report is [{_code(where, 2000)}]({where}), an address that few browsers open. Elsewhere:"
    else:
        place = f"The whole report is {_code(str(Path(where).resolve()), 2000)}, a file of the worker's. Elsewhere:"
    command = shlex.join(["ladm", "report", "--run", run_id, "--store", store, "--out", "report.html"])
    return [place, "", "```", command, "```", "", f"`{BASE}`, in the worker's environment, makes a link of it."]


def _code(text: str, characters: int) -> str:
    """Text from anywhere as it is to be read, in Markdown."""
    return f"`{printable(text, characters).replace('`', chr(39))}`"


@contextlib.contextmanager
def _never_in_the_way() -> Iterator[None]:
    """What is merely shown must not fail a shard or a run: what keeps it from being shown is logged."""
    try:
        yield
    except Exception as error:
        _log_of_the_run().warning("not shown in Prefect: %s: %s", type(error).__name__, error)
