"""`$NAME` and `~` in the paths of a configuration: what they stand for, or one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.config import load_config, store_uri
from ladm.tasks.errors import ConfigError
from ladm.tasks.places import expanded


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/curator")
    monkeypatch.setenv("BUCKET", "raw")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_path_of_a_configuration_is_expanded() -> None:
    settings = [
        "store=$HOME/st",
        "sources=[~/a.jsonl, 's3://${BUCKET}/x/*.jsonl', {uri: $HOME/b.jsonl}]",
        "decontaminate={against: ~/bench.txt}",
        "scorer={model: $HOME/model, layers: calibrated, calibration: ~/c.json}",
    ]
    config = load_config(overrides=settings)
    assert config.store == "/home/curator/st"
    assert [source.uri for source in config.sources] == [
        "/home/curator/a.jsonl",
        "s3://raw/x/*.jsonl",
        "/home/curator/b.jsonl",
    ]
    assert config.decontaminate is not None
    assert config.decontaminate.against[0].uri == "/home/curator/bench.txt"
    assert (config.scorer.model, config.scorer.calibration) == ("/home/curator/model", "/home/curator/c.json")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("store=$NOT_SET/st", "store: $NOT_SET in '$NOT_SET/st' is not set; set the environment variable, or write"),
        ("store=$EMPTY/st", "store: $EMPTY in '$EMPTY/st' is not set"),
        ("store='s3://${NOT_SET}/st'", "store: $NOT_SET in 's3://${NOT_SET}/st' is not set"),
        ("store='${HOME:-/tmp}/st'", "store: '${HOME:-/tmp}' in '${HOME:-/tmp}/st' is not a variable; write $NAME"),
        ("store='`pwd`/st'", "store: '`pwd`' in '`pwd`/st' is not a variable"),
        ("store='${HOME/st'", "store: '${' in '${HOME/st' is not a variable"),
        ("store=''", "store: the name is empty; give a folder or s3://bucket/prefix"),
        ("store=$(hostname)/st", "store: '$(' in '$(hostname)/st' is not a variable"),
        ("store=~nobody-of-that-name/st", "store: '~nobody-of-that-name' in '~nobody-of-that-name/st' has no home"),
        ("sources=[a.jsonl, $NOT_SET/b.jsonl]", "sources: entry 1: $NOT_SET in '$NOT_SET/b.jsonl' is not set"),
        ("decontaminate.against=$NOT_SET/b", "decontaminate.against: entry 0: $NOT_SET in '$NOT_SET/b' is not set"),
        ("scorer.model=$NOT_SET/m", "scorer.model: $NOT_SET in '$NOT_SET/m' is not set"),
        ("scorer={layers: calibrated, calibration: $NOT_SET}", "scorer.calibration: $NOT_SET in '$NOT_SET' is not"),
    ],
)
def test_what_stands_for_nothing_is_refused(setting: str, line: str) -> None:
    with pytest.raises(ConfigError, match="^" + re.escape(line)):
        load_config(overrides=[setting])


def test_the_store_of_other_commands_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADM_STORE", "~/st")
    assert (store_uri(None), store_uri("$HOME/other")) == ("/home/curator/st", "/home/curator/other")
    monkeypatch.setenv("LADM_STORE", "$NOT_SET/st")
    with pytest.raises(ConfigError, match=r"^LADM_STORE: \$NOT_SET in"):
        store_uri(None)
    with pytest.raises(ConfigError, match=r"^--store: \$NOT_SET in"):
        store_uri("$NOT_SET")


def test_names_of_files_that_are_there_stay(tmp_path: Path) -> None:
    for name in ("price$.jsonl", "in$5.jsonl", "of$NOT_SET.jsonl", "$(x).jsonl", "~draft.jsonl"):
        (tmp_path / name).touch()
        assert expanded(name) == name
        assert expanded(name[:-1] + "*") == name[:-1] + "*"


def test_a_run_goes_where_the_variable_says(
    corpus: Corpus, ladm: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE", str(tmp_path / "elsewhere"))
    answer = ladm(*run_arguments(corpus, Path("$WHERE/st")), "--until", "ingest")
    assert answer.code == 0, answer.err
    assert (tmp_path / "elsewhere" / "st" / "runs").is_dir()
    assert not (tmp_path / "$WHERE").exists()


def test_an_empty_name_for_the_store_is_refused(ladm: Callable[..., Answer]) -> None:
    for command in (["run"], ["plan"], ["sql", "select 1"], ["report"], ["gc", "--keep", "1"], ["init", "."]):
        answer = ladm(*command, "--store", "")
        assert (answer.code, answer.out) == (2, "")
        assert answer.err == "ladm: --store: the name is empty; give a folder or s3://bucket/prefix\n"
