"""`ladm sql` without a query: a shell on a terminal, refused where there is none."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Answer, Corpus, run_arguments
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from ladm.flows.ask.shell import SqlCompleter, is_whole

Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shell") / "store"


@pytest.fixture
def filled(store: Path, corpus: Corpus, ladm: Cli) -> Path:
    """A store with one completed run (made once)."""
    if not store.exists():
        assert ladm(*run_arguments(corpus, store)).code == 0
    return store


# A test run that was started in the background ignores SIGINT, and its children would, too.
SHELL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ladm.flows.cli import main
sys.exit(main())
"""


class Terminal:
    """`ladm sql` on a pseudo-terminal of 200 columns."""

    def __init__(self, *arguments: str, cache: Path) -> None:
        main, child = pty.openpty()
        import fcntl
        import struct
        import termios

        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        environment = {**os.environ, "LADM_CACHE": str(cache), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHELL, "sql", *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            env=environment,
            start_new_session=True,
        )
        os.close(child)
        self.main = main
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def read_until(self, pattern: str, seconds: float = 180) -> str:
        """What is printed until `pattern` has come, without the terminal's escape sequences; it is then forgotten."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"{pattern!r} never came; seen: {self.seen!r}"
            if select.select([self.main], [], [], 0.2)[0]:
                try:
                    chunk = os.read(self.main, 65536)
                except OSError:  # what Linux says at the end of a pseudo-terminal
                    chunk = b""
                assert chunk, f"the shell ended before {pattern!r}; seen: {self.seen!r}"
                self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", chunk.decode(errors="replace"))
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.main)


@pytest.fixture
def terminal(filled: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts the shell; a second one has the first one's history."""
    started: list[Terminal] = []

    def start(*more: str) -> Terminal:
        started.append(Terminal("--store", str(filled), *more, cache=tmp_path / "cache"))
        started[-1].read_until(r"ladm>")
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_asks_answers_and_remembers(terminal: Callable[[], Terminal]) -> None:
    shell = terminal()
    shell.type("select domain, count(*) as windows\r")
    shell.read_until(r"\.\.\.>")
    shell.type("from scores group by 1 order by 1;\r")
    answer = shell.read_until(r"Poems.*3[\s\S]*ladm>")
    assert re.search(r"Letters.*4", answer)

    shell.type("select * from nowhere;\r")
    assert "Traceback" not in shell.read_until(r"nowhere does not exist[\s\S]*ladm>")

    shell.type("select 1, oops")  # Ctrl-C drops the line and asks again
    shell.read_until("oops")
    shell.type("\x03")
    shell.read_until(r"ladm>")
    shell.type(".views\r")
    assert "cds_per_layer" in shell.read_until(r"runs: run_id[\s\S]*ladm>")
    shell.type(".what\r")
    shell.read_until(r"\.what is not a command[\s\S]*Ctrl-C[\s\S]*ladm>")
    shell.type("\x04")  # Ctrl-D leaves
    assert shell.process.wait(timeout=30) == 0

    again = terminal()
    again.type("\x1b[A\x1b[A\x1b[A\x1b[A")  # up, past .what, .views and the refused one
    again.read_until("order by 1;")
    again.type("\r")
    again.read_until(r"Poems.*3[\s\S]*ladm>")
    again.type(".quit\r")
    assert again.process.wait(timeout=30) == 0


def test_tab_completes_views_and_columns(terminal: Callable[[], Terminal]) -> None:
    shell = terminal()
    shell.type("select quara\t")  # one choice alone: it is taken
    shell.read_until("antine")
    shell.type("\x03")
    shell.read_until(r"ladm>")
    shell.type("select scores.cds_p\t")
    shell.read_until("er_layer")
    shell.type(", 1 + 1 as two from scores limit 1;\r")
    shell.read_until(r"cds_per_layer[\s\S]*two[\s\S]*ladm>")


def test_the_guards_of_a_single_query_hold(terminal: Callable[[], Terminal], filled: Path) -> None:
    shell = terminal()
    refused = "ladm sql reads and never writes|disabled|[Pp]ermission|Cannot"
    for query in (
        f"copy (select 1) to '{filled}/x.csv';",
        "create table t as select 1;",
        "set enable_external_access = true;",
        "select * from read_text('/etc/hostname');",
        "select 1; drop view scores;",
        f"select * from enable_profiling(format='json', save_location='{filled}/x.csv');",
        f"select * from enable_logging(storage='file', storage_path='{filled}/x.csv');",
    ):
        shell.type(f"{query}\r")
        shell.read_until(rf"({refused})[\s\S]*ladm>")
    assert not (filled / "x.csv").exists()


def test_a_long_answer_is_cut_and_a_long_query_can_be_stopped(terminal: Callable[[], Terminal]) -> None:
    shell = terminal()
    shell.type("select i as number from range(100000000000) r(i);\r")
    answer = shell.read_until(r"the first 200 rows; there are more[\s\S]*ladm>")
    assert re.search(r"\b199\b", answer)
    assert not re.search(r"\b200 *│", answer)
    shell.type("select count(*) from range(1000000000000) r(i) where i % 7 = 3;\r")
    shell.read_until("= 3;")
    time.sleep(2)
    os.kill(shell.process.pid, signal.SIGINT)  # as Ctrl-C is to a program that does not read the terminal
    shell.read_until(r"(stopped|[Ii]nterrupt)[\s\S]*ladm>")
    shell.type("select 40 + 2 as n;\r")
    shell.read_until(r"42[\s\S]*ladm>")


def test_a_query_is_ended_after_a_while_and_the_next_one_is_not(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("--timeout", "2")
    shell.type("with recursive t as (select 1 union all select 1 from t) select count(*) from t;\r")
    shell.read_until(r"ended after 2 s; --timeout gives it more[\s\S]*ladm>")
    shell.type("select 40 + 2 as n;\r")
    shell.read_until(r"42[\s\S]*ladm>")


def test_without_a_terminal_it_is_refused(filled: Path, ladm: Cli) -> None:
    answer = ladm("sql", "--store", filled)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "QUERY" in answer.err


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        *[(text, True) for text in ("", " \n", ".views", "quit", "select 1;", "select 1; ")],
        *[(text, False) for text in ("select 1", "from scores -- all", "quit it")],
    ],
)
def test_when_enter_asks(text: str, whole: bool) -> None:
    assert is_whole(text) is whole


@pytest.mark.parametrize(
    ("typed", "choices"),
    [
        ("select * from sc", ["scores"]),
        ("select * from SC", ["scores"]),
        ("select scores.cd", ["cds", "cds_per_layer"]),
        ("select Scores.", ["window_id", "cds", "cds_per_layer"]),
        ("select s.cd", ["cds", "cds_per_layer"]),
        (".v", [".views"]),
        ("sel", ["select"]),
        ("select ", []),
        ("", []),
    ],
)
def test_what_is_completed(typed: str, choices: list[str]) -> None:
    views = {"scores": ["window_id", "cds", "cds_per_layer"], "ranking": ["rank", "selected"]}
    completer = SqlCompleter(views, ["select", "from"])
    found = completer.get_completions(Document(typed), CompleteEvent(completion_requested=True))
    assert [one.text for one in found if one.text != "selected"] == choices
