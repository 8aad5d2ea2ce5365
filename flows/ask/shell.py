"""The shell of `ladm sql`: the same read-only views and guards as for one query, with history and completion."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from ladm.flows.ask.meanings import VIEWS
from ladm.flows.ask.query import answer, run_views
from ladm.flows.ask.shown import asked_run
from ladm.flows.ask.timeout import TIMEOUT_SECONDS
from ladm.tasks.errors import QueryError
from ladm.tasks.models.cache import cache_root
from ladm.tasks.storage import duck
from ladm.tasks.storage.store import Store

MOST_ROWS = 200
COMMANDS = {
    ".help": "this list",
    ".views": "the views and their columns",
    ".columns": "what the columns of a view mean, as in: .columns scores",
    ".quit": "leave; so does Ctrl-D",
}
LEAVE = {".quit", ".exit", "quit", "exit"}
HELP = "\n".join(
    [
        "A query is one SELECT statement on as many lines as you like; `;` ends it, as in: from selected limit 5;",
        *(f"{name:<9} {text}" for name, text in COMMANDS.items()),
        "Tab       completes views, columns and keywords; up and down go through what you asked before",
        "Ctrl-C    drops what is typed, or stops the query that runs",
        f'At most {MOST_ROWS} rows of an answer are shown; `ladm sql "QUERY" --format csv` gives all of them.',
    ]
)


def shell(
    store_uri: str, run_id: str | None, show: Callable[[pa.Table], None], timeout: float = TIMEOUT_SECONDS
) -> None:
    """Ask for queries on the terminal and answer them, until the user leaves.

    Args:
        store_uri: The store.
        run_id: The run; the newest completed one when not given.
        show: Prints an answer.
        timeout: Seconds that one query may take.

    Raises:
        RecordError: No such store or run.
    """
    store = Store(store_uri)
    record = asked_run(store, run_id, print)
    with run_views(store, record) as connection:
        views = view_columns(connection)
        print(f"run {record['run_id']} ({record['status']}); views: {', '.join(views)}; .help helps, .quit leaves")
        session: PromptSession[str] = PromptSession(
            message="ladm> ",
            prompt_continuation=" ...> ",
            history=_history(),
            completer=SqlCompleter(views, _words(connection)),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_enter_ends_a_statement(),
        )
        while True:
            try:
                text = session.prompt().strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            command = text.rstrip("; ").lower()
            if command in LEAVE:
                return
            if command == ".views":
                print("\n".join(f"{name}: {', '.join(columns)}" for name, columns in views.items()))
            elif command.startswith(".columns"):
                print(meanings(command.removeprefix(".columns").strip()))
            elif command.startswith("."):
                print(HELP if command == ".help" else f"{command} is not a command\n{HELP}")
            elif text:
                _ask(connection, text, show, timeout)


def _ask(connection: duckdb.DuckDBPyConnection, text: str, show: Callable[[pa.Table], None], timeout: float) -> None:
    try:
        table = answer(connection, text, MOST_ROWS + 1, timeout)
        show(table.slice(0, MOST_ROWS))
        if table.num_rows > MOST_ROWS:
            print(f"the first {MOST_ROWS} rows; there are more")
    except QueryError as error:
        print(error)
    except (KeyboardInterrupt, RuntimeError):  # what DuckDB raises when it sees the signal first
        connection.interrupt()
        print("stopped")


def is_whole(text: str) -> bool:
    """Whether Enter after `text` asks it: a statement that ends with `;`, a command, a blank line."""
    text = text.strip()
    return not text or text.endswith(";") or text.startswith(".") or text.lower() in LEAVE


class SqlCompleter(Completer):
    """Completes commands at the start of a line, columns after `view.`, else views, columns, keywords and functions."""

    def __init__(self, views: Mapping[str, Sequence[str]], words: Sequence[str]) -> None:
        self.views = views
        columns = sorted({column for columns in views.values() for column in columns})
        # the views' own names first: they are what cannot be known by heart
        self.names = list(dict.fromkeys([*views, *columns, *words]))
        self.columns = columns

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """What the word before the cursor can become."""
        before = document.text_before_cursor
        if re.fullmatch(r"\s*\.\w*", before):
            choices, typed = list(COMMANDS), before.strip()
        else:
            found = re.search(r"(?:(\w+)\.)?(\w*)$", before)
            assert found is not None  # it also matches nothing
            owner, typed = found[1], found[2]
            choices = self.names if owner is None else list(self.views.get(owner.lower(), self.columns))
            if owner is None and not typed:
                return
        for choice in choices:
            if choice.lower().startswith(typed.lower()):
                yield Completion(choice, -len(typed))


def view_columns(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """The views of `sql/views.sql` and their columns."""
    names = re.findall(r"^create view (\w+)", duck.statement("views"), re.MULTILINE)
    return {name: [row[0] for row in connection.execute(f"describe {name}").fetchall()] for name in names}


def meanings(name: str) -> str:
    """What a view shows and what its columns mean, or which views there are."""
    view = VIEWS.get(name)
    if view is None:
        return f"{name or 'nothing'} is not a view; the views are {', '.join(VIEWS)}"
    width = max(map(len, view.columns))
    return "\n".join([view.shows, *(f"  {column:<{width}}  {text}" for column, text in view.columns.items())])


def _words(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """DuckDB's keywords, and its functions that take values."""
    rows = connection.execute(
        "select keyword_name from duckdb_keywords() union select function_name from duckdb_functions() "
        "where function_type in ('scalar', 'aggregate') order by 1"
    ).fetchall()
    return [word for (word,) in rows if re.fullmatch(r"[a-z]\w*", word)]


def _history() -> History:
    """What was asked before, kept in the cache folder; in memory where that cannot be written."""
    path: Path = cache_root() / "sql_history"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.open("ab").close()
        return FileHistory(path)
    return InMemoryHistory()


def _enter_ends_a_statement() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # takes the completion, and goes on
        elif is_whole(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return keys
