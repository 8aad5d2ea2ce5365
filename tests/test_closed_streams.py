"""Standard streams that are closed, or take no more, or not every character."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from conftest import Corpus, run_arguments

from ladm.flows.ask.query import answer
from ladm.tasks.errors import QueryError

CODE = "import sys; from ladm.flows.cli import main; raise SystemExit(main())"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_matter(tmp_path: Path, closed: str) -> None:
    command = f'exec "$0" -c "$1" run --until tokenize --set \'execution={{workers: 1}}\' {closed}'
    ended = subprocess.run(
        ["sh", "-c", command, sys.executable, CODE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ("results: " in ended.stdout) == (" >&-" not in f" {closed}")
    assert "ingest" not in ended.stdout.partition("┏")[0]  # what is for stderr does not come out at stdout
    assert len(list((tmp_path / "ladm-store" / "runs").glob("*/run.json"))) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_log_that_cannot_be_written_ends_no_run(tmp_path: Path, corpus: Corpus) -> None:
    program = "import sys; from ladm.flows.cli import main; sys.exit(main())"
    command = [*run_arguments(corpus, tmp_path / "store"), "--until", "length"]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", program, *command], stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["status"] == "completed"


@pytest.mark.parametrize(
    ("encoding", "written"), [("ascii", "é ☃".encode()), ("latin-1", b"\xe9 \\u2603"), ("utf-8", "é ☃".encode())]
)
def test_any_text_is_written_whatever_the_encoding(encoding: str, written: bytes) -> None:
    program = "from ladm.flows.streams import write_everything; write_everything(); print('\\xe9 \\u2603')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True)
    assert ended.stdout == written + b"\n"


def test_a_query_is_utf8_in_any_locale() -> None:
    with duckdb.connect() as connection:
        in_ascii = "select 'é'".encode().decode("ascii", "surrogateescape")
        assert answer(connection, in_ascii).to_pylist() == [{"'é'": "é"}]
        with pytest.raises(QueryError, match="no UTF-8"):
            answer(connection, "select '\udcff'")
