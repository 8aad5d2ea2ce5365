"""What a deployed run shows in Prefect: notices in its log and artifacts, its name, and a report that opens."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Corpus, write_jsonl
from prefect.client.orchestration import get_client
from starlette.applications import Starlette
from starlette.testclient import TestClient

from ladm.flows.config import load_config
from ladm.flows.dag.curate import RunFailedError, curate
from ladm.flows.orchestration import naming, report_links
from ladm.flows.orchestration.environment import prefect_server
from ladm.flows.report.markdown import plain
from ladm.flows.runs.read import read_record, run_ids
from ladm.tasks.models.cache import cache_root
from ladm.tasks.storage.store import Store

KEYS = ("ladm-run", "ladm-stages", "ladm-report")


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """What goes to the log of flow runs, from where Prefect sends it to its server."""
    records: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, handler = logging.getLogger("prefect.flow_runs"), Keeping()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(before)


def deployed(corpus: Corpus, store: Path, *more: str, until: str = "export") -> dict[str, str]:
    """A run as a worker does it; key → the data of the artifacts that it leaves."""
    config = load_config(None, [*corpus.settings, *more], str(store))
    with prefect_server(cache_root()), get_client(sync_client=True) as client:
        with contextlib.suppress(RunFailedError):
            curate(config, until)
        run_id = run_ids(Store(str(store)))[-1]
        run = next(run for run in client.read_flow_runs(limit=200) if run.name.startswith(run_id))
        asked = {"flow_runs": {"id": {"any_": [str(run.id)]}}}
        found: list[Any] = client.request("POST", "/artifacts/filter", json=asked).json()
        scored = [one["description"] for one in found if one["key"] == "ladm-scoring"]
        return {"name": run.name, "scored": "".join(scored), **{one["key"]: one["data"] for one in found}}


def the_record(store: Path) -> dict[str, Any]:
    return read_record(Store(str(store)), run_ids(Store(str(store)))[-1])


def test_notices_reach_the_log_and_the_artifacts(
    tmp_path: Path, corpus: Corpus, logged: list[logging.LogRecord]
) -> None:
    (corpus.folder / "broken.jsonl").write_bytes(b"\xff\xfe")
    own = ("scorer.layers=fitting", "calibrate.windows=30")
    shown = deployed(corpus, tmp_path / "store", *own)
    record = the_record(tmp_path / "store")
    (notice,) = record["notices"]
    assert notice.startswith("scorer.layers: no calibration is shipped for ")
    assert notice in [entry.getMessage() for entry in logged if entry.levelno == logging.WARNING]
    assert all(getattr(entry, "flow_run_id", None) for entry in logged if entry.getMessage() == notice)
    assert f"- notice: `{notice.replace('`', chr(39))}`" in shown["ladm-run"]
    assert "note: 1 of 3 source files is unreadable and left out" in shown["ladm-run"]
    assert "  ladm sql " in shown["ladm-run"]

    # another one, that a file of the store was made again
    logged.clear()
    damaged = next((tmp_path / "store" / "tokenize").rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"elsewhere")
    shown = deployed(corpus, tmp_path / "store", "scorer.span=8", *own)
    said = [entry.getMessage() for entry in logged]
    for kind in ("is scored again", "damaged or missing in the store"):
        assert any(kind in line for line in said), said
        assert kind in shown["ladm-run"]


@pytest.mark.parametrize("more", [["scorer.layers=all"], ["scorer.beside=[gzip, longattn]"]])
def test_each_window_is_counted_once_whether_the_store_has_it_or_not(
    more: list[str], tmp_path: Path, corpus: Corpus
) -> None:
    told = [deployed(corpus, tmp_path / "store", *more)["scored"] for _ in range(2)]
    for done, _, of, *rest in map(str.split, told):
        assert (done, rest) == (of, ["windows", "scored"]), told


def test_failures_reach_the_log_and_the_artifacts(
    tmp_path: Path, corpus: Corpus, logged: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladm.tasks.scorers import window_scores

    def wrong(*_: Any) -> Any:
        raise ConnectionError("the disk is away")

    monkeypatch.setattr(window_scores, "score_windows", wrong)
    shown = deployed(corpus, tmp_path / "store")
    errors = [entry.getMessage() for entry in logged if entry.levelno == logging.ERROR]
    assert any("score failed: " in line and "the disk is away" in line for line in errors)
    assert "run the deployment again" in shown["ladm-run"]
    assert "ladm-report" not in shown


def test_a_flow_run_is_named_by_its_run_and_its_store(tmp_path: Path, corpus: Corpus) -> None:
    shown = deployed(corpus, tmp_path / "store", until="ingest")
    run_id = the_record(tmp_path / "store")["run_id"]
    assert shown["name"] == f"{run_id} {tmp_path / 'store'}"[:150].strip() or shown["name"].endswith("…")
    assert shown["name"].startswith(f"{run_id} ")


@pytest.mark.parametrize("config", [{"store": "s3://bucket/p"}, {"store": None}, {}, None])
def test_names_of_any_configuration(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        parameters = {"config": config} if config is not None else None
        flow_run = None

    monkeypatch.setattr("prefect.context.FlowRunContext.get", Context)
    name = naming.flow_run_name()
    assert name.partition(" ")[2] == ((config or {}).get("store") or "")


# -- reports ---------------------------------------------------------------------------------------------------


def test_the_report_is_shown_where_no_link_can_open_it(tmp_path: Path, corpus: Corpus) -> None:
    write_jsonl(corpus.folder / "odd.jsonl", "a|b <script> [x](y)", 5, [300])
    shown = deployed(corpus, tmp_path / "store")["ladm-report"]
    run_id = the_record(tmp_path / "store")["run_id"]
    assert f"`{tmp_path}/store/runs/{run_id}/report.html`" in shown
    assert "](file://" not in shown
    assert f"ladm report --run {run_id} --store {tmp_path}/store --out report.html" in shown
    assert "| ingest | 10 | 10 | 0 | 0 |" in shown
    assert "<script>" not in shown
    assert plain("a|b <script> [x](y)") in shown
    assert (tmp_path / "store" / "runs" / run_id / "report.html").is_file()


@pytest.mark.parametrize("base", ["https://files.example/ladm", "https://files.example/ladm/"])
def test_a_base_address_makes_links(base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, corpus: Corpus) -> None:
    monkeypatch.setenv(report_links.BASE, base)
    assert report_links.report_link("s3://b/p", "a run") == "https://files.example/ladm/runs/a%20run/report.html"
    shown = deployed(corpus, tmp_path / "store")["ladm-report"]
    run_id = the_record(tmp_path / "store")["run_id"]
    assert f"(https://files.example/ladm/runs/{run_id}/report.html)" in shown


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Our server, as far as reports go."""
    given = report_links.serve_reports(tmp_path, "http://testserver")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return TestClient(Starlette(routes=[report_links.report_route(Path(given[report_links.KEY_FILE]))]))


@pytest.mark.parametrize("kind", ["local", "memory"])
@pytest.mark.parametrize("name", ["store", "a store #1 100% & more"])
def test_our_server_gives_out_what_a_link_names(kind: str, name: str, served: TestClient, tmp_path: Path) -> None:
    uri = str(tmp_path / name) if kind == "local" else f"memory://{name}"
    Store(uri).write_bytes("runs/r-1/report.html", b"<h1>a report</h1>")
    link = report_links.report_link(uri, "r-1")
    assert link is not None
    answer = served.get(link)
    assert (answer.status_code, answer.text) == (200, "<h1>a report</h1>")
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts"
    gone = report_links.report_link(uri, "r-2")
    assert gone is not None
    assert served.get(gone).status_code == 404


def test_nobody_else_can_make_such_a_link(served: TestClient, tmp_path: Path) -> None:
    for name in ("one", "other"):
        Store(str(tmp_path / name)).write_bytes("runs/r-1/report.html", b"secret")
        Store(str(tmp_path / name)).write_bytes("runs/r-2/report.html", b"secret")
    link = report_links.report_link(str(tmp_path / "one"), "r-1")
    assert link is not None
    for wrong in (
        link.replace("r-1", "r-2"),
        link.replace("one", "other"),
        link.partition("&signature")[0],
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        "http://testserver/ladm/reports/r-1",
        "http://testserver/ladm/reports/r-1?signature=é",
    ):
        assert served.get(wrong).status_code == 403, wrong
    assert (tmp_path / "report-links.key").stat().st_mode & 0o777 == 0o600


def test_links_outlive_the_server(tmp_path: Path) -> None:
    first = report_links.serve_reports(tmp_path, "http://a")
    key = (tmp_path / "report-links.key").read_text()
    assert report_links.serve_reports(tmp_path, "http://a") == first
    assert (tmp_path / "report-links.key").read_text() == key
