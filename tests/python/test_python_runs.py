"""Runs from Python: started, opened, asked, printed, and as a subflow of a flow of the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pytest
import yaml
from conftest import Corpus

import ladm
from ladm.tasks.errors import ConfigError, QueryError, RecordError


def values_of(corpus: Corpus, store: Path) -> dict[str, Any]:
    """The corpus's settings as the values of a configuration."""
    return {"export": ["parquet"], **corpus.values(store)}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The configuration of the run that most tests look at; it is made once."""
    return {}


@pytest.fixture
def done(kept: dict[str, Any], corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> ladm.Run:
    if kept:
        return ladm.open(kept["store"])
    kept |= values_of(corpus, tmp_path_factory.mktemp("python") / "store")
    return ladm.run(kept, progress=False)


def test_importing_it_loads_nothing_and_is_fast() -> None:
    program = (
        "import sys, time; begin = time.monotonic(); import ladm; seconds = time.monotonic() - begin\n"
        "heavy = {'torch', 'prefect', 'pyarrow', 'duckdb', 'numpy', 'pydantic', 'transformers'} & sys.modules.keys()\n"
        "assert not heavy and seconds < 0.3, (heavy, seconds)\n"
        "assert {'run', 'open', 'score', 'curate', 'evaluate', 'Run', 'config'} <= set(dir(ladm))\n"
        "from ladm import *\n"
        "assert run is ladm.run and score is ladm.score\n"
        "assert 'torch' not in sys.modules and 'prefect' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_all_that_it_names_is_there_and_says_what_it_does() -> None:
    for name in ladm.__all__:
        assert getattr(ladm, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        ladm.runs  # type: ignore[attr-defined]  # noqa: B018
    assert (Path(ladm.__file__).parent / "py.typed").exists()


def test_a_run_and_its_tables(done: ladm.Run, corpus: Corpus) -> None:
    assert done.status == "completed"
    frame = done.ranking().to_pandas()
    assert len(frame) == 7
    assert {"doc_id", "domain", "rank", "score", "selected"} <= set(frame.columns)
    assert frame["rank"].tolist() == [1, 2, 3, 4, 1, 2, 3]
    assert len(done.documents()) == 9
    assert len(done.scores()) == 7
    assert done.dropped().to_pylist() == []
    assert done.quarantine().columns[0] == "stage"
    selected = done.selected().to_arrow()
    assert selected.num_rows == done.record["stages"]["rank"]["selected_documents"]
    assert done.windows().to_arrow().num_rows == 7
    assert done.allocation().to_pylist()
    assert {job["stage"] for job in done.stages().to_pylist()} >= {"ingest", "rank"}
    assert (Path(done.folder) / "ranking.parquet").is_file()


def test_its_tables_are_taken_without_pandas(done: ladm.Run) -> None:
    scores = done.scores()
    count = scores.to_arrow().num_rows
    assert polars.DataFrame(scores).height == count
    assert pa.table(scores).num_rows == count
    assert duckdb.sql("select count(*) from scores").fetchone() == (count,)
    assert sum(batch.num_rows for batch in scores.batches()) == count


def test_queries_read_and_nothing_else(done: ladm.Run) -> None:
    best = done.sql("select domain, max(score) as best from ranking group by 1 order by 1").to_pylist()
    assert [row["domain"] for row in best] == ["Letters", "Poems"]
    for query in ("drop table x", "select * from nowhere", "from read_csv('/etc/passwd')", "select error('later')"):
        with pytest.raises(QueryError) as refused:
            done.sql(query).to_arrow()
        assert "\n" not in str(refused.value)


def test_it_prints_well(done: ladm.Run) -> None:
    assert done.id in repr(done)
    assert "rank" in repr(done)
    assert f"results: {done.folder}" in repr(done)
    html = done._repr_html_()
    assert done.id in html
    assert "<table>" in html
    table = repr(done.ranking())
    assert table.splitlines()[0].split()[:4] == ["doc_id", "domain", "rank", "score"] or "doc_id" in table
    assert all(line == line.rstrip() for line in table.splitlines())
    assert "the first 10 rows; there are more" in repr(done.sql("from range(11)"))
    assert "there are more" not in repr(done.sql("from range(10)"))
    odd = done.sql("select '<b>[red]' || chr(27) as \"<i>\"")
    assert "&lt;b&gt;[red]\\x1b" in odd._repr_html_()
    assert "<b>[red]\\x1b" in repr(odd)


def test_a_second_run_finds_everything_and_changes_are_applied(done: ladm.Run, kept: dict[str, Any]) -> None:
    values = kept
    again = ladm.run(values, progress=False)
    assert all(stage["run"] == 0 for stage in again.record["stages"].values())
    assert ladm.open(done.store, done.id).id == done.id
    ways: list[dict[str, Any]] = [
        {"select": {"budget_tokens": 1000}},
        {"select__budget_tokens": 1000},
        {"select.budget_tokens": 1000},
    ]
    for changes in ways:
        config = ladm.config(values, **changes)
        assert config.select.budget_tokens == 1000
        assert config.window.length == 256, "what is not named stays"
    assert ladm.config(config, window={"take": "all"}).select.budget_tokens == 1000
    changed = ladm.run(config, progress=False)
    assert changed.record["windows_scored"] == 0
    assert changed.record["stages"]["rank"]["run"] == 1


def test_a_file_is_a_configuration_and_none_is_the_sample(tmp_path: Path, corpus: Corpus) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values_of(corpus, tmp_path / "store")))
    assert ladm.config(file).window.length == 256
    assert ladm.config(str(file), store=tmp_path / "other").store == str(tmp_path / "other")
    assert ladm.config().sources[0].uri.endswith(".jsonl.zst")


def test_mistakes_are_value_errors_of_one_line(tmp_path: Path, corpus: Corpus) -> None:
    values = values_of(corpus, tmp_path / "store")

    def told(error: type[ValueError], call: Any) -> str:
        with pytest.raises(error) as raised:
            call()
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "window.lenght: unknown key" in told(ConfigError, lambda: ladm.run(values, window={"lenght": 3}))
    assert "config: int is none" in told(ConfigError, lambda: ladm.run(3))  # type: ignore[arg-type]
    assert "cannot read the configuration" in told(ConfigError, lambda: ladm.run(tmp_path / "nothing.yaml"))
    assert "no file matches" in told(ValueError, lambda: ladm.run(values, sources="nowhere/*.jsonl", progress=False))
    assert "there is no run in" in told(RecordError, lambda: ladm.open(tmp_path / "empty"))
    assert not (tmp_path / "store" / "runs").exists()


def test_a_run_that_fails_raises_and_keeps_what_was_done(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = values_of(corpus, tmp_path / "store")
    values["select"]["where"] = "score > 1e300"
    with pytest.raises(ladm.FailedRunError, match=r"select\.where") as failed:
        ladm.run(values, progress=False)
    assert failed.value.run.status == "failed"
    assert failed.value.run.scores().to_arrow().num_rows == 7


SUBFLOW = """
import sys
from prefect import flow
import ladm

@flow
def nightly(config, budget):
    run = ladm.curate(config, select={"budget_tokens": budget})
    assert isinstance(run, ladm.Run)
    within = ladm.run(config, select={"budget_tokens": budget})      # the same, in a flow
    assert all(stage["run"] == 0 for stage in within.record["stages"].values())
    return run.record["stages"]

for expected in (False, True):
    stages = nightly(sys.argv[1], 2000)
    assert all((stage["run"] == 0) == expected for stage in stages.values()), stages
try:
    nightly(sys.argv[1], "many")
except ValueError as error:
    assert "select.budget_tokens" in str(error) and "\\n" not in str(error), error
else:
    raise AssertionError
print("found")
"""


@pytest.fixture
def config_file(tmp_path: Path, corpus: Corpus) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values_of(corpus, tmp_path / "store")))
    return file


def test_a_subflow_of_ones_own_flow_finds_everything_at_its_second_run(tmp_path: Path, config_file: Path) -> None:
    """With Prefect as a user has it: its own server, its own settings."""
    program = tmp_path / "own_flow.py"
    program.write_text(SUBFLOW)
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    answer = subprocess.run(
        [sys.executable, str(program), str(config_file)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **own,
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # Prefect's own server, on a busy machine
        },
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("found\n")
