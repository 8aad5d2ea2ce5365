"""What a run did not get though nothing failed: sources, records, names of domains, tokens of its targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ladm.flows.runs.outcomes import Done, Shortfall
from ladm.flows.runs.record import RunRecord
from ladm.tasks.printable import printable
from ladm.tasks.reading.records import UNKNOWN_DOMAIN
from ladm.tasks.stages.ingest import WITHOUT_DOMAIN
from ladm.tasks.storage.store import Store

NAMED = 3
"""So many sources, domains or targets are named; all are found by the query."""
NAME_CHARACTERS = 200


def find_shortfalls(record: RunRecord, store: Store) -> list[Shortfall]:
    """What a run that is about to be published did not get. Reads what is small: quarantines of files, the allocation.

    Args:
        record: What the run did; nothing failed in it.
        store: Where it did it.
    """
    refresh = record.as_json()["refresh"]
    found = [_unreadable(record, store), _quarantined(record, store), _gone(refresh), _without_domain(record)]
    return [*(one for one in found if one), *_short(record, store)]


def _unreadable(record: RunRecord, store: Store) -> Shortfall | None:
    """Source files that were quarantined whole."""
    rows = [row for done in record.of("ingest") for row in _files_lost(done, store)]
    if not rows:
        return None
    named = [f"{_shown(row['source'])} ({printable(row['reason'], NAME_CHARACTERS)})" for row in rows[:NAMED]]
    text = f"{_of(len(rows), len(record.plan.files), 'source file')} unreadable and left out: "
    query = "select source, reason from quarantine where stage = 'ingest' and line is null order by source"
    return Shortfall(text + _first(named, len(rows)), query)


def _files_lost(done: Done, store: Store) -> list[dict[str, Any]]:
    """The quarantine's rows about whole files of a job that reads sources."""
    manifest = done.manifest
    if not manifest.measures.get("files_quarantined") or manifest.quarantine is None:
        return []
    rows: list[dict[str, Any]] = store.read_shard(manifest.quarantine).to_pylist()
    return [row for row in rows if row["line"] is None]


def _quarantined(record: RunRecord, store: Store) -> Shortfall | None:
    """Records, and windows, that were quarantined in files that could be read."""
    counted: dict[str, int] = {}
    for done in record.done:
        of_files = sum(row["records"] for row in _files_lost(done, store))
        if number := done.manifest.counts.quarantined - of_files:
            counted[done.manifest.stage] = counted.get(done.manifest.stage, 0) + number
    if not counted:
        return None
    stages = ", ".join(f"{number:,} in {stage}" for stage, number in counted.items())
    query = "select stage, source, line, reason, excerpt from quarantine where line is not null order by source, line"
    return Shortfall(f"records quarantined and left out: {stages}", query)


def _gone(refresh: Mapping[str, Any] | None) -> Shortfall | None:
    """Source files that the previous run had."""
    if not refresh or not refresh["removed"]["files"]:
        return None
    uris, previous = refresh["removed"]["uris"], refresh["previous"]
    text = f"gone since run {previous}, with what came from them: {len(uris):,} source {_plural('file', len(uris))}: "
    query = "select source, count(*) as documents from documents group by source order by source"
    return Shortfall(text + _first([_shown(uri) for uri in uris[:NAMED]], len(uris)), query)


def _without_domain(record: RunRecord) -> Shortfall | None:
    """Documents that name no domain where their source's `domain` says."""
    ingested = [done for done in record.of("ingest") if done.manifest.measures.get(WITHOUT_DOMAIN)]
    if not ingested:
        return None
    number = sum(done.manifest.measures[WITHOUT_DOMAIN] for done in ingested)
    kept = sum(done.manifest.counts.kept for done in record.of("ingest"))
    asked = sorted({entry.config.domain for entry in record.plan.files if isinstance(entry.config.domain, str)})
    where = _first([printable(one, NAME_CHARACTERS) for one in asked[:NAMED]], len(asked))
    # a job that read several small files is known by its label
    named = [_shown(done.manifest.label if done.manifest.packed else done.source) for done in ingested[:NAMED]]
    text = (
        f"{_of(number, kept, 'document')} without a domain at {where} (sources.domain), together in the domain "
        f"{UNKNOWN_DOMAIN!r}, from {_first(named, len(ingested))}"
    )
    query = f"select source, count(*) as documents from documents where domain = '{UNKNOWN_DOMAIN}' group by source"
    return Shortfall(text, query)


def _short(record: RunRecord, store: Store) -> Iterator[Shortfall]:
    """Targets of domains, quotas and replay that ran out of documents. Less than one document short is no shortfall."""
    files = [file for done in record.of("rank") for file in done.manifest.files]
    rows = [
        row
        for file in files
        if file.path.endswith("allocation.parquet")
        for row in store.read_shard(file).to_pylist()
        if row["short_tokens"] and row["exhausted"]
    ]
    if not rows:
        return
    select = record.plan.config.select
    named = [_target(row) for row in sorted(rows, key=lambda row: -row["short_tokens"])[:NAMED]]
    measures = next((done.manifest.measures for done in record.of("rank")), {})
    goal = (select.goal_tokens or 0) + select.replay_tokens
    whole = f" ({measures.get('selected_tokens', 0):,} of {goal:,} tokens in all)" if goal else ""
    field = "select.quotas" if select.quotas else "select.budget_tokens"
    if all(row["role"] == "replay" for row in rows):
        field = "select.replay"
    yield Shortfall(
        f"{field}: short of documents{whole}: {_first(named, len(rows))}",
        "select role, domain, bucket_min, bucket_max, target_tokens, selected_tokens, short_tokens from allocation "
        "where short_tokens > 0 and exhausted order by short_tokens desc",
    )


def _target(row: Mapping[str, Any]) -> str:
    """What a domain or quota got of what it should have got."""
    low, high = row["bucket_min"], row["bucket_max"]
    bucket = "" if low is None and high is None else f" [{low or 0:,}, {'…' if high is None else f'{high:,}'})"
    got = f"{row['selected_tokens']:,} of {row['target_tokens']:,} tokens"
    nothing = ", no document" if not row["documents"] else ""
    return f"{_shown(row['domain'])}{bucket} {got}{nothing}"


def _shown(name: str) -> str:
    return printable(name, NAME_CHARACTERS)


def _first(named: Sequence[str], number: int) -> str:
    more = f" and {number - len(named):,} more" if number > len(named) else ""
    return ", ".join(named) + more


def _plural(what: str, number: int) -> str:
    return what if number == 1 else f"{what}s"


def _of(number: int, whole: int, what: str) -> str:
    return f"{number:,} of {whole:,} {what}s {'is' if number == 1 else 'are'}"
