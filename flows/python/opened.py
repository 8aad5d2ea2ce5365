"""A run that is in a store, opened: its record, and its results as tables."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any

from ladm.flows.ask.query import streamed
from ladm.flows.ask.shown import newest_run
from ladm.flows.config import store_uri
from ladm.flows.python.table import Table
from ladm.flows.runs.read import read_record
from ladm.tasks.storage.file_systems import reached
from ladm.tasks.storage.store import Store


class Run:
    """A run of a store. Every method that gives a `Table` reads the store when the table is used, not before."""

    def __init__(self, store: str, record: dict[str, Any]) -> None:
        self._store = Store(store)
        self.record = record
        """All that is known of the run, as `ladm run --json` prints it."""

    @property
    def store(self) -> str:
        """The store that it is in."""
        return self._store.uri

    @property
    def id(self) -> str:
        """Its name in the store."""
        return str(self.record["run_id"])

    @property
    def status(self) -> str:
        """`completed` or `failed`."""
        return str(self.record["status"])

    @property
    def folder(self) -> str:
        """Where its results lie: a path, or an address of S3."""
        return self._store.url(f"runs/{self.id}")

    def sql(self, query: str) -> Table:
        """What one SELECT statement over the run's views gives (`ladm sql`).

        Raises:
            QueryError: When the table is used: it is no SELECT, does more than read, or DuckDB finds it wrong.
        """
        return Table(partial(streamed, self._store, self.record, query))

    def documents(self) -> Table:
        """All documents that were read, with their text."""
        return self.sql("from documents")

    def windows(self) -> Table:
        """The windows that were cut, with their token ids."""
        return self.sql("from windows")

    def scores(self) -> Table:
        """The scores of every window."""
        return self.sql("from scores")

    def ranking(self) -> Table:
        """Every ranked document: its rank in its domain, its score, and whether it was selected."""
        return self.sql("from ranking order by domain, rank")

    def selected(self) -> Table:
        """The selected documents, one row a copy, without their text."""
        return self.sql("from selected")

    def allocation(self) -> Table:
        """What every domain or quota should have got, and got."""
        return self.sql("from allocation")

    def dropped(self) -> Table:
        """Documents that were dropped or held back, each with the reason."""
        return self.sql("from dropped")

    def quarantine(self) -> Table:
        """Records that could not be used, each with its file, line and reason."""
        return self.sql("from quarantine")

    def stages(self) -> Table:
        """The jobs of every stage: what went in, what came out, how long it took, whether it was found in the store."""
        return self.sql("from stages")

    def report(self, out: str | None = None, heatmaps: int = 0) -> str:
        """Write the run's report, one HTML page, and return where it is (`ladm report`)."""
        from ladm.flows.report.page import write_report  # noqa: PLC0415  (matplotlib)

        return write_report(self.store, self.id, out, heatmaps, lambda _: None)

    def __repr__(self) -> str:
        lines = [f"run {self.id} of {self.store}: {self.status}, {self.record['seconds']:.0f} s"]
        lines += [f"  {name:<9} {words}" for name, words in self._stages_in_words()]
        return "\n".join([*lines, *(f"  {line}" for line in self._results())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(words)}</td></tr>" for name, words in self._stages_in_words()
        )
        head = f"<b>run {escape(self.id)}</b>: {escape(self.status)}, {self.record['seconds']:.0f} s"
        results = "".join(f"<p>{escape(line)}</p>" for line in self._results())
        return f"<p>{head}</p><table>{rows}</table>{results}"

    def _stages_in_words(self) -> list[tuple[str, str]]:
        told = []
        for name, stage in self.record["stages"].items():
            parts = [f"{stage['in']:,} in", f"{stage['kept']:,} kept"]
            parts += [f"{number:,} dropped ({reason})" for reason, number in stage["dropped"].items()]
            parts += [f"{stage['quarantined']:,} quarantined"] if stage["quarantined"] else []
            parts += ["found in the store"] if stage["cached"] and not stage["run"] else []
            told.append((name, ", ".join(parts)))
        return told

    def _results(self) -> list[str]:
        lines = [
            f"failed: {failure['stage']} {failure['shard']}: {failure['error']}"
            for failure in self.record["failures"][:5]
        ]
        if ranked := self.record["stages"].get("rank"):
            lines.append(
                f"selected {ranked['selected_documents']:,} of {ranked['documents']:,} documents, "
                f"{ranked['selected_tokens']:,} of {ranked['tokens']:,} tokens"
            )
        return [*lines, f"results: {self.folder}"]


def open_run(store: str | None = None, run: str | None = None) -> Run:
    """Open a run of a store.

    Args:
        store: A folder or s3://bucket/prefix; `$LADM_STORE` or `./ladm-store` when not given.
        run: The run's id; the newest completed one when not given.

    Raises:
        RecordError: There is no such store or run.
    """
    uri = store_uri(None if store is None else str(store))
    with reached("store", uri):
        place = Store(uri)
        return Run(uri, read_record(place, run or newest_run(place)))
