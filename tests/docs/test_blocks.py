"""Every command, query, program and configuration of the README and of docs/ is run here, or marked as not run.

What is run, runs on the bundled sample and on made-up files, under a tiny random model that stands in for the embedded
one. What is marked (`<!-- not run: why -->` on the line before the block) must at least be a command that there is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blocks import LANGUAGES, SHOWN, Block, blocks, commands
from conftest import write_jsonl

from ladm.flows.ask.query import run_query
from ladm.flows.cli import _parser, main
from ladm.flows.config import load_config
from ladm.flows.yaml_text import read_yaml
from ladm.tasks.models import resolve

ALL = blocks()
RUN = [block for block in ALL if block.not_run is None]
CI = ["pip", "ruff", "mypy", "pytest"]
"""What CI runs by itself, in the one block that holds its command."""


class Place:
    """A folder to run the commands of the documentation in."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.done: set[tuple[str, ...]] = set()

    def run(self, command: list[str]) -> None:
        """Run one `ladm` command, if it was not run before."""
        if tuple(command) in self.done:
            return
        self.done.add(tuple(command))
        # `ladm init` replaces no file, and the one of this folder is what the other commands are meant for
        more = ["--out", f"made-{len(self.done)}.yaml"] if command[1] == "init" else []
        assert main([*command[1:], *more]) == 0, command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, long_model: Path) -> Iterator[Place]:
    """A folder with `config.yaml`, data and a store of the bundled sample; the tiny model stands for every other."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "data").mkdir()
    write_jsonl(folder / "letters.jsonl", "Letters", 1, [9000, 7000, 6000, 900, 20])
    content = zstandard.compress((folder / "letters.jsonl").read_bytes())
    (folder / "data" / "letters.jsonl.zst").write_bytes(content)
    (folder / "config.yaml").write_text(
        # the run of the sample makes a calibration of its own; to make one for each other takes longer than all else
        "sources: data/*.jsonl.zst\nwindow: {length: 1024}\nscorer: {span: 32, layers: all}\nexport: parquet\n"
    )
    (folder / "book.txt").write_text("A line of a book that goes on.\n" * 400, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(resolve, "from_pypi", lambda *_: long_model)
        place = Place(folder, long_model)
        place.run(["ladm", "run"])
        yield place


@pytest.fixture(scope="module")
def long_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, for windows of any length."""
    folder = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(tiny_model, folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 2048', '"max_position_embeddings": 65536'))
    return folder


def named(chosen: list[Block]) -> dict[str, Any]:
    """The arguments of `parametrize` for blocks."""
    return {"argvalues": chosen, "ids": [block.place for block in chosen]}


@pytest.mark.parametrize("block", **named(ALL))
def test_a_block_is_of_a_language_that_is_run_or_shows_something(block: Block) -> None:
    assert block.language in LANGUAGES | SHOWN, f"{block.place}: ```{block.language}"
    if block.not_run is not None:
        assert len(block.not_run) > 5


@pytest.mark.parametrize("block", **named([block for block in ALL if block.language == "bash"]))
def test_commands_are_commands(block: Block) -> None:
    """Whether run or not: every `ladm …` has a command and options that there are."""
    for command in commands(block):
        words = [word for word in command if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if words and words[0] == "ladm" and words[1:] not in ([], ["--version"]):
            _parser().parse_args(words[1:])
        elif words and block.not_run is None:
            assert words[0] in {*CI, "ladm"}, f"{block.place}: {words[0]}: mark the block as not run"


@pytest.mark.parametrize("block", **named([block for block in RUN if block.language == "bash"]))
def test_commands_run(block: Block, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(block):
        if command[0] == "ladm":
            place.run(command)


@pytest.mark.parametrize("block", **named([block for block in RUN if block.language == "sql"]))
def test_queries_have_an_answer(block: Block, place: Place) -> None:
    queries = [part for part in re.split(r";\s*$", block.text, flags=re.MULTILINE) if part.strip()]
    for query in queries:
        run_query(str(place.folder / "ladm-store"), query)


@pytest.mark.parametrize("block", **named([block for block in RUN if block.language == "yaml"]))
def test_configurations_are_accepted(block: Block, place: Place) -> None:
    """A whole configuration as it stands; sections beside those of a small one."""
    path = place.folder / "shown.yaml"
    values = {"sources": "data/*.jsonl"} | read_yaml(block.text)
    path.write_text(block.text + ("" if "sources" in read_yaml(block.text) else "\nsources: data/*.jsonl\n"))
    config = load_config(str(path))
    assert {name for name in values if not hasattr(config, name)} == set()


PROGRAMS = [block for block in RUN if block.language == "python"]


@pytest.mark.parametrize("page", sorted({block.page for block in PROGRAMS}))
def test_programs_run(page: str, place: Place) -> None:
    """The programs of a page one after the other: a later one may use what an earlier one made."""
    text = (place.folder / "book.txt").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__", "book": text, "article": text[: len(text) // 2]}
    for block in PROGRAMS:
        if block.page == page:
            exec(compile(block.text, block.place, "exec"), names)


def test_the_readme_is_short() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert len(text.split()) <= 1300


def test_the_readme_shows_the_test_command_of_ci() -> None:
    root = Path(__file__).parents[2]
    command = (
        (root / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1].replace("pip install -q", "pip install")
    )
    assert f"\n{command}\n" in (root / "README.md").read_text(encoding="utf-8")
