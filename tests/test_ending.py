"""How runs end: what they did not get, and a next command that can be pasted and does what it says."""

from __future__ import annotations

import errno
import json
import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import Answer, Corpus, run_arguments, write_jsonl

from ladm.flows.cli import _parser
from ladm.flows.dag.remedies import remedy_of
from ladm.flows.ending import DEPLOYED, ending, run_command
from ladm.tasks.errors import AccountError, ConfigError, SourceChangedError
from ladm.tasks.storage.store import DamagedFileError

Cli = Callable[..., Answer]


def for_people(corpus: Corpus, store: Path, *more: str) -> list[str]:
    """A run's arguments without `--json`."""
    return [argument for argument in run_arguments(corpus, store, *more) if argument != "--json"]


def pasted(ladm: Cli, line: str) -> Answer:
    """What a command line gives that the summary showed."""
    program, *arguments = shlex.split(line)
    assert program == "ladm"
    return ladm(*arguments)


def commands(out: str) -> list[str]:
    """The command lines in a summary."""
    return [line.strip() for line in out.splitlines() if line.startswith("  ladm ")]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ConnectionError("gone"), "again"),
        (TimeoutError(), "again"),
        (MemoryError(), "again"),
        (SourceChangedError("a.jsonl: changed"), "again"),
        (KeyboardInterrupt(), "again"),
        (RuntimeError("[enforce fail] can't allocate memory"), "again"),
        (OSError(errno.ENOSPC, "No space left on device"), "mend"),
        (OSError(errno.EROFS, "Read-only file system"), "mend"),
        (duckdb.IOException("could not write: No space left on device"), "mend"),
        (PermissionError(errno.EACCES, "denied"), "mend"),
        (FileNotFoundError("model"), "mend"),
        (DamagedFileError(["score/x.parquet"]), "mend"),
        (ConfigError("select.where: leaves nothing"), "change"),
        (AccountError("lost"), "report"),
        (KeyError("ours"), "report"),
        (ValueError("ours"), "report"),
        (sqlite3.ProgrammingError("ours"), "report"),
    ],
)
def test_what_can_be_done_about_an_error(error: BaseException, remedy: str) -> None:
    assert remedy_of(error) == remedy


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "my config.yaml", "--store", "/a b/store#1", "--set", "sources=data/*.jsonl", "--set", "a.b='x'"],
        ["run", "c.yaml", "--until", "tokenize", "--max-quarantined", "0.01", "--runner", "dask", "--json"],
    ],
)
def test_the_command_can_be_pasted(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    program, *again = shlex.split(run_command(options))
    assert program == "ladm"
    assert vars(_parser().parse_args(again)) == vars(options)


def test_nothing_is_said_where_nothing_is_amiss(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    answer = ladm(*for_people(corpus, tmp_path / "store"))
    assert answer.code == 0
    assert answer.out.splitlines()[-1].startswith("results: ")
    assert "run" not in [line.split(maxsplit=1)[0] for line in answer.out.splitlines()[-2:]]


def failing_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.tasks.scorers import window_scores

    def wrong(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(window_scores, "score_windows", wrong)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionError("the store is gone"), "next (it does only what is not done"),
        (OSError(errno.ENOSPC, "No space left on device"), "next, once that is mended"),
        (ConfigError("scorer.model: is another now"), "next, with that changed:"),
    ],
)
def test_a_failed_run_shows_its_own_command(
    error: Exception, told: str, tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing_with(error, patch)
        answer = ladm(*for_people(corpus, tmp_path / "a store"))
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert lines[-2].startswith(told)
    (command,) = commands(answer.out)
    assert command == lines[-1].strip()
    again = pasted(ladm, command)
    assert again.code == 0
    assert "windows scored in this run: 7" in again.out


@pytest.mark.parametrize("error", [KeyError("ours"), AccountError("1 record lost"), TypeError("ours")])
def test_after_a_bug_nothing_is_to_be_run_again(
    error: Exception, tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_with(error, monkeypatch)
    answer = ladm(*for_people(corpus, tmp_path / "store"))
    assert answer.code == 1
    last = answer.out.splitlines()[-1]
    assert last.startswith("this is a bug, and running again does not mend it; please report it, with ")
    assert Path(last.rpartition(" ")[2]).is_file()
    assert commands(answer.out) == []


@pytest.mark.parametrize("limit", ["max_quarantined=0.1", "max_quarantined=0"])
def test_after_too_much_quarantine(limit: str, tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    with (corpus.folder / "poems.jsonl").open("a") as file:
        file.write("{no json\n{no json\n")
    answer = ladm(*for_people(corpus, tmp_path / "store", limit))
    assert answer.code == 1
    assert "the same command would fail again" in answer.out
    looked, without = commands(answer.out)
    shown = pasted(ladm, f"{looked} --format json")
    assert [row["line"] for row in json.loads(shown.out)] == [5, 6]
    assert pasted(ladm, without).code == 0


def test_after_sources_vanished(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    arguments = for_people(corpus, tmp_path / "store", "max_removed=0.2")
    assert ladm(*arguments).code == 0
    (corpus.folder / "poems.jsonl").rename(tmp_path / "poems.jsonl")
    answer = ladm(*arguments)
    assert answer.code == 1
    _, accepted = commands(answer.out)
    done = pasted(ladm, accepted)
    assert done.code == 0
    note = next(line for line in done.out.splitlines() if line.startswith("note: "))
    assert "1 source file: " in note
    assert note.endswith("/poems.jsonl")
    (tmp_path / "poems.jsonl").rename(corpus.folder / "poems.jsonl")
    again = pasted(ladm, commands(answer.out)[0])
    assert again.code == 0
    assert "note: " not in again.out


def test_after_nothing_was_left(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    answer = ladm(*for_people(corpus, tmp_path / "store", "window.length=2048"))
    assert answer.code == 1
    (command,) = commands(answer.out)
    rows = json.loads(pasted(ladm, f"{command} --format json").out)
    assert {row["stage"] for row in rows} >= {"ingest", "length"}


def test_a_run_that_lost_sources_says_which(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    for number in range(5):
        (corpus.folder / f"broken-{number}.jsonl").write_bytes(b"\xff\xfe" + "UTF-16".encode("utf-16-le"))
    answer = ladm(*for_people(corpus, tmp_path / "store"))
    assert answer.code == 0
    (note,) = [line for line in answer.out.splitlines() if line.startswith("note: ")]
    assert "5 of 7 source files are unreadable and left out: " in note
    assert "broken-0.jsonl (" in note
    assert note.endswith("and 2 more")
    (command,) = commands(answer.out)
    assert len(json.loads(pasted(ladm, f"{command} --format json").out)) == 5


def test_a_run_that_quarantined_records_says_how_many(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    with (corpus.folder / "poems.jsonl").open("a") as file:
        file.write('{no json\n{"text": 7}\n')
    answer = ladm(*for_people(corpus, tmp_path / "store"))
    assert "note: records quarantined and left out: 2 in ingest" in answer.out
    (command,) = commands(answer.out)
    assert len(json.loads(pasted(ladm, f"{command} --format json").out)) == 2


@pytest.mark.parametrize("unnamed", [None, "", {"two": "names"}])
def test_a_run_that_met_an_unknown_domain_says_so(unnamed: Any, tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    write_jsonl(corpus.folder / "nameless.jsonl", "x", 5, [300, 320])
    path = corpus.folder / "nameless.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**one, "meta": {"pile_set_name": unnamed}}) + "\n" for one in records))
    answer = ladm(*for_people(corpus, tmp_path / "store"))
    (note,) = [line for line in answer.out.splitlines() if line.startswith("note: ")]
    assert "2 of 11 documents are without a domain at meta.pile_set_name (sources.domain)" in note
    assert "nameless.jsonl" in note
    (command,) = commands(answer.out)
    (row,) = json.loads(pasted(ladm, f"{command} --format json").out)
    assert (Path(row["source"]).name, row["documents"]) == ("nameless.jsonl", 2)


def test_a_constant_domain_of_that_name_is_one(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    source = f"sources=[{{uri: '{corpus.folder}/*.jsonl', domain: {{const: unknown}}}}]"
    assert "note: " not in ladm(*for_people(corpus, tmp_path / "store", source)).out


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["select.budget_tokens=1000000"], "select.budget_tokens: short of documents ("),
        (
            ["select={allocation: quotas, quotas: [{domain: Letters, tokens: 500}, {domain: Poets, tokens: 900}]}"],
            "Poets 0 of 900 tokens, no document",
        ),
        (
            ["select={allocation: quotas, quotas: [{domain: Poems, bucket: [9000, null], tokens: 900}]}"],
            "select.quotas: short of documents (0 of 900 tokens in all): Poems [9,000, …) 0 of 900 tokens, no document",
        ),
        (["select={allocation: uniform, budget_tokens: 1000000}"], "Letters "),
    ],
)
def test_a_run_that_missed_its_targets_says_so(
    settings: list[str], told: str, tmp_path: Path, corpus: Corpus, ladm: Cli
) -> None:
    answer = ladm(*for_people(corpus, tmp_path / "store", *settings))
    (note,) = [line for line in answer.out.splitlines() if line.startswith("note: ")]
    assert told in note
    (command,) = commands(answer.out)
    rows = json.loads(pasted(ladm, f"{command} --format json").out)
    assert rows
    assert all(row["short_tokens"] > 0 for row in rows)


def test_as_json_the_ending_is_in_the_record_and_on_stderr(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    (corpus.folder / "broken.jsonl").write_bytes(b"\xff\xfe")
    answer = ladm(*run_arguments(corpus, tmp_path / "store"))
    (shortfall,) = answer.record["shortfalls"]
    assert f"note: {shortfall['text']}" in answer.err
    assert (answer.record["remedies"], answer.record["notices"][:1]) == ([], answer.record["notices"][:1])


def test_names_from_the_data_are_shown_harmlessly(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    (corpus.folder / "bro\x1b[31mken\n.jsonl").write_bytes(b"\xff\xfe")
    answer = ladm(*for_people(corpus, tmp_path / "store", f"sources={corpus.folder}"))
    assert "\x1b" not in answer.out
    assert "bro\\x1b[31mken\\n.jsonl" in answer.out


def test_a_deployed_run_names_no_command() -> None:
    record = {"run_id": "r", "store": "s3://b/p", "shortfalls": [], "remedies": ["again", "sources"]}
    lines = ending(record)
    assert f"  {DEPLOYED}" in lines
    assert f"  {DEPLOYED} with max_removed=1" in lines
    assert not any(line.startswith("  ladm") for line in lines)


def test_one_command_is_told_once() -> None:
    """Files that changed can be read again, others must be put right before: it is the same command."""
    record = {"store": "s", "run_id": "r", "until": "export", "shortfalls": [], "remedies": ["again", "mend"]}
    assert ending(record, "ladm run") == [
        "next, once that is mended (it does only what is not done, and the ranking):",
        "  ladm run",
    ]
    assert ending({**record, "remedies": ["again"], "until": "length"}, "ladm run") == [
        "next (it does only what is not done):",
        "  ladm run",
    ]
