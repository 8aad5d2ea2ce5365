"""What a command prepares for its flow is for that flow alone: taken once, of its configuration, and then gone."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.config import load_config
from ladm.flows.console import Console
from ladm.flows.dag import prepared
from ladm.flows.dag.curate import curate
from ladm.flows.evaluation.evaluate import evaluate
from ladm.flows.orchestration.environment import prefect_server
from ladm.tasks.errors import AccountError
from ladm.tasks.models.cache import cache_root

Cli = Callable[..., Answer]


def test_a_second_run_in_one_process_does_its_own_plan(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    first = ladm(*run_arguments(corpus, tmp_path / "first"))
    assert first.code == 0, first.err
    config = load_config(None, [*corpus.settings, "window.length=300"], str(tmp_path / "second"))
    with prefect_server(cache_root()):
        record = curate(config, "tokenize")
    assert record["store"] == str(tmp_path / "second")
    assert record["config"] == config.model_dump(mode="json")
    assert list(record["stages"]) == ["ingest", "length", "tokenize"]
    assert (tmp_path / "second" / "runs" / record["run_id"] / "run.json").exists()


def of(corpus: Corpus, *more: str) -> Any:
    return load_config(None, [*corpus.settings, *more], "store")


def test_a_plan_is_taken_once_and_is_gone_when_the_command_is_done(corpus: Corpus) -> None:
    plan, console, config = cast(Any, object()), Console.silent(), of(corpus)
    assert prepared.take_plan(config, "export") is None
    with prepared.give_plan(config, "export", plan, console):
        taken = contextvars.copy_context().run(prepared.take_plan, of(corpus), "export")
        assert taken is not None and (taken.plan, taken.console) == (plan, console)  # noqa: PT018
        assert prepared.take_plan(config, "export") is None
    with pytest.raises(OSError, match="server"), prepared.give_plan(config, "export", plan, console):
        raise OSError("no server")
    assert prepared.take_plan(config, "export") is None


def test_the_plan_of_another_run_is_refused(corpus: Corpus) -> None:
    for config, until in ((of(corpus, "window.length=300"), "export"), (of(corpus), "score")):
        with prepared.give_plan(of(corpus), "export", cast(Any, object()), Console.silent()):
            with pytest.raises(AccountError, match="not of the configuration"):
                prepared.take_plan(config, until)
            assert prepared.take_plan(config, until) is None


def test_a_question_is_answered_once() -> None:
    question = cast(Any, object())
    with prepared.give_question(question):
        assert prepared.take_question() is question
        with pytest.raises(AccountError, match="once"):
            prepared.take_question()
    with pytest.raises(AccountError, match="once"):
        evaluate.fn()
