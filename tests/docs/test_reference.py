"""The reference holds every key of the configuration, every SQL column and every option, each with what it means."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.ask.meanings import VIEWS
from ladm.flows.ask.shell import meanings
from ladm.flows.config import RunConfig
from ladm.tasks.storage.duck import statement

sys.path.append(str(Path(__file__).parents[2] / "docs" / "hooks"))

import python_reference
import reference

Cli = Callable[..., Answer]


def properties() -> list[tuple[str, str, dict[str, Any]]]:
    """Section's title, key and schema of every property that pydantic knows of."""
    schema = RunConfig.model_json_schema()
    sections = {"RunConfig": schema, **schema["$defs"]}
    return [
        (title, name, one) for title, section in sections.items() for name, one in section.get("properties", {}).items()
    ]


@pytest.mark.parametrize(
    ("section", "key", "schema"), properties(), ids=lambda one: one if isinstance(one, str) else ""
)
def test_every_key_of_the_configuration_is_described(section: str, key: str, schema: dict[str, Any]) -> None:
    assert schema.get("description"), f"{section}.{key}: give the field a docstring, in the words of a user"
    text = " ".join(schema["description"].split()).replace("|", "\\|").replace("<", "&lt;")
    rows = [line for line in reference.configuration_page().splitlines() if re.match(rf"\| \[?`{key}`", line)]
    assert any(text in row for row in rows)


def test_every_key_has_a_row_of_its_own() -> None:
    keys = [key.path for key in reference.configuration_keys()]
    assert len(keys) == len(set(keys))
    assert {"window.length", "select.replay.share", "export[mds].pack.length", "sources[].domain.const"} <= set(keys)
    assert reference.configuration_page().count("\n| ") == len(keys) + reference.configuration_page().count("| key |")


def test_every_column_is_described(corpus: Corpus, ladm: Cli, tmp_path: Path) -> None:
    """The views as they are in a run, with what the scorers beside `ladm` add."""
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store, "scorer.beside=[gzip, text]")).code == 0
    for name, view in VIEWS.items():
        described = ladm("sql", f"select column_name from (describe {name})", "--store", store, "--format", "json")
        assert [row["column_name"] for row in json.loads(described.out)] == list(view.columns), name
        assert all(view.columns.values())
    assert re.findall(r"^create view (\w+)", statement("views"), re.MULTILINE) == list(VIEWS)


def test_the_shell_tells_the_columns() -> None:
    assert "gate_distance" in meanings("scores")
    assert meanings("nonsense").startswith("nonsense is not a view; the views are documents, ")


@pytest.mark.parametrize("command", reference.commands())
def test_every_option_is_described(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        reference.commands()[command].parse_args(["--help"])
    shown = set(re.findall(r"^  (--[\w-]+)", capsys.readouterr().out, re.MULTILINE))
    found = {one.name.split()[0]: one.description for one in reference.options() if one.command == command}
    assert shown == {name for name in found if name.startswith("--")}
    assert all(found.values()), f"{command}: an option without help"
    (section,) = re.findall(rf"^## {command}$(.*?)(?=^## |\Z)", reference.cli_page(), re.MULTILINE | re.DOTALL)
    assert all(f"| `{name}" in section for name in found)


def test_every_name_of_the_python_api_is_described() -> None:
    page = python_reference.python_page()
    for name, value in python_reference.public_names().items():
        assert f"\n## ladm.{name}\n" in page
        for member, of in [(name, value), *python_reference.members(value)]:
            assert inspect.getdoc(of), f"ladm.{name}: {member}: give it a docstring"
    assert "**Raises:**" in page
    assert "until: str = 'export'" in page
    assert "### Run.ranking" in page
