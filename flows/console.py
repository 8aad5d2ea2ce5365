"""What a person sees while a run goes on: bars on a terminal, plain lines when piped, all of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ladm.flows.bytes_read import BytesRead
from ladm.flows.dag.stages import TABLE
from ladm.flows.ending import ending
from ladm.flows.runs.changes import in_words
from ladm.flows.runs.outcomes import Done
from ladm.tasks.job import Job
from ladm.tasks.manifest import Counts
from ladm.tasks.scorers.known_windows import REUSED

SHOWN = {row.stage.name: row.shown for row in TABLE if row.shown}
"""Stage → what its bar counts."""

READING, READ = "ingest", "read"
"""The stage that reads source files, and the bar of their bytes."""
SHOWN_BYTES = 64 * 2**20
"""So many bytes have a bar."""


class _RateColumn(ProgressColumn):
    """How many units are done a second, at present; a minute, where they are fewer than one."""

    def render(self, task: Any) -> Text:
        if not (speed := task.finished_speed or task.speed):
            return Text("")
        return Text(f"{speed:,.1f}/s" if speed >= 1 else f"{60 * speed:,.1f}/min")


class Console:
    """Shows the progress of one run."""

    def __init__(self, stream: TextIO | None) -> None:
        self._rich = RichConsole(file=stream, stderr=stream is None, quiet=stream is None)
        self._plain = stream is not None and not self._rich.is_terminal
        self._progress: Progress | None = None
        self._bars: dict[str, Any] = {}
        self._said: set[str] = set()
        self.read = BytesRead(self._say_read)
        """Of the source files."""
        self.leave: Callable[[int], None] = lambda number: None
        """Ends the process of a run that a signal stopped, when the run has left its record."""

    @classmethod
    def silent(cls) -> Console:
        """A console that shows nothing (a deployed run reports through Prefect)."""
        return cls(None)

    def __enter__(self) -> Console:
        if self._rich.is_terminal and not self._rich.quiet:
            columns = (
                TextColumn("{task.description:<9}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                _RateColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(compact=True),
            )
            self._progress = Progress(*columns, console=self._rich)
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bars off the screen's control."""
        if self._progress:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line about something that takes a while; with the time, where lines are all there is to see."""
        if self._plain:
            text = f"{text}  [{time.strftime('%Y-%m-%d %H:%M:%S')}]"
        self._rich.print(text, markup=False, highlight=False, soft_wrap=True)

    def _say_read(self, text: str) -> None:
        if self._plain:
            self.say(text)

    def say_once(self, about: str, text: str) -> None:
        """One line, unless there is none, or one about the same was said before."""
        if text and about not in self._said:
            self._said.add(about)
            self.say(text)

    def expect(self, stage: str) -> None:
        """One more job of a stage is to be done."""
        unit = SHOWN.get(stage)
        if self._progress and unit and unit != "windows":
            self._grow(stage, 1, unit)

    def expect_windows(self, stage: str, windows: int) -> None:
        """So many more windows are to go through the model; fewer, where it turns out so."""
        if self._progress:
            self._grow(stage, windows, "windows")

    def expect_bytes(self, job: Job) -> None:
        """A job is to be done, which may read source files."""
        if job.stage == READING:
            files = [job.source] if job.source else job.group
            self.read.expect(job.part.bytes if job.part else sum(file.size for file in files))

    def advance(self, stage: str, units: int) -> None:
        """A running job of a stage got further by so many windows; where it reads source files, stored bytes."""
        if stage == READING:
            self.read.advance(units)
            if self._progress and self.read.expected >= SHOWN_BYTES:
                self._grow(READ, 0, "MB")
                read, expected = (round(size / 1e6) for size in (self.read.read, self.read.expected))
                self._progress.update(self._bars[READ], completed=read, total=expected)
        elif self._progress and stage in self._bars:
            self._progress.advance(self._bars[stage], units)

    def finished(self, done: Done) -> None:
        """A job is done. Its windows are not counted here: `advance` tells of them."""
        manifest = done.manifest
        if self._plain:
            state = "cached" if done.cached else "done"
            known = manifest.measures.get(REUSED, 0)
            taken_over = f", {known:,} of them known from an earlier run" if known and not done.cached else ""
            self.say(f"{manifest.stage:<9} {state:<7} {manifest.label}  {account(manifest.counts)}{taken_over}")
        if self._progress and SHOWN.get(manifest.stage, "windows") != "windows":
            self._progress.advance(self._bars[manifest.stage], 1)

    def failed(self, stage: str, label: str, reason: str) -> None:
        """A job failed for good."""
        self.say(f"{stage:<9} failed  {label}  {reason}")

    def _grow(self, stage: str, by: int, unit: str) -> None:
        assert self._progress is not None
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, total=0, unit=unit)
        bar = self._progress.tasks[self._progress.task_ids.index(self._bars[stage])]
        self._progress.update(self._bars[stage], total=(bar.total or 0) + by)


class HeldConsole(Console):
    """Shows nothing, and keeps what it was told for another console."""

    def __init__(self) -> None:
        super().__init__(None)
        self._told: list[tuple[str, tuple[Any, ...]]] = []

    def say(self, text: str) -> None:
        """Keep a line."""
        self._told.append(("say", (text,)))

    def expect(self, stage: str) -> None:
        """Keep that a job is to be done."""
        self._told.append(("expect", (stage,)))

    def expect_windows(self, stage: str, windows: int) -> None:
        """Keep that windows are to go through the model."""
        self._told.append(("expect_windows", (stage, windows)))

    def advance(self, stage: str, units: int) -> None:
        """Keep that windows are done."""
        self._told.append(("advance", (stage, units)))

    def finished(self, done: Done) -> None:
        """Keep that a job is done."""
        self._told.append(("finished", (done,)))

    def failed(self, stage: str, label: str, reason: str) -> None:
        """Keep that a job failed."""
        self._told.append(("failed", (stage, label, reason)))

    def tell(self, console: Console) -> None:
        """Tell another console what this one was told."""
        for what, given in self._told:
            getattr(console, what)(*given)
        self._told.clear()


def account(counts: Counts) -> str:
    """A job's counts in words."""
    parts = [f"{counts.received:,} in", f"{counts.kept:,} kept"]
    parts += [f"{number:,} dropped ({reason})" for reason, number in sorted(counts.dropped.items())]
    if counts.quarantined:
        parts.append(f"{counts.quarantined:,} quarantined")
    return ", ".join(parts)


def print_summary(record: dict[str, Any], command: str | None = None) -> None:
    """The table of stages, where the results are and what to do next, on stdout.

    Args:
        record: The run's record.
        command: The command line that started it.
    """
    out = RichConsole(file=sys.stdout, soft_wrap=False, width=None if sys.stdout.isatty() else 110)
    table = Table(title=f"run {record['run_id']}: {record['status']}, {record['seconds']:.0f} s", title_justify="left")
    table.add_column("stage")
    for name in ("run", "cached", "failed", "in", "kept", "dropped", "quarantined", "seconds"):
        table.add_column(name, justify="right")
    for stage, summary in record["stages"].items():
        cells = [summary[name] for name in ("run", "cached", "failed", "in", "kept")]
        cells += [sum(summary["dropped"].values()), summary["quarantined"]]
        table.add_row(stage, *(f"{cell:,}" for cell in cells), f"{summary['seconds']:.1f}")
    out.print(table)
    for failure in record["failures"]:
        out.print(f"failed: {failure['stage']} {failure['shard']}: {failure['error']}", markup=False, soft_wrap=True)
    if not record["failures"]:
        _print_results(out, record)
    for line in ending(record, command):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_results(out: RichConsole, record: dict[str, Any]) -> None:
    """What a run that completed gave, and where it is."""
    where = f", on {', '.join(record['devices'])}" if record["devices"] not in ([], ["cpu"]) else ""
    out.print(f"windows scored in this run: {record['windows_scored']}{where}", markup=False, highlight=False)
    ranked = record["stages"].get("rank")
    if ranked:
        out.print(
            f"selected {ranked['selected_documents']:,} of {ranked['documents']:,} documents in {ranked['domains']} "
            f"domains, {ranked['selected_tokens']:,} of {ranked['tokens']:,} tokens",
            markup=False,
            highlight=False,
        )
    if record["refresh"]:
        out.print(in_words(record["refresh"]), markup=False, highlight=False, soft_wrap=True)
    folder = f"{record['store'].rstrip('/')}/runs/{record['run_id']}"
    out.print(f"results: {folder}", markup=False, highlight=False, soft_wrap=True)
