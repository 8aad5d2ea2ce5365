"""Bad input through the command line: nothing hangs, nothing is lost, and the good files beside it are unharmed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import Answer, Corpus, run_arguments, write_jsonl
from test_hostile_files import HOSTILE, expected_here
from test_processes import start
from test_quarantine import rows_of
from test_report import page_of

from ladm.flows.orchestration.environment import prefect_server
from ladm.flows.report.cells import shown
from ladm.tasks.models.cache import cache_root

Cli = Callable[..., Answer]

DOMAINS = [
    *(
        "../../x",
        "..",
        "/etc/passwd",
        "a/b\\c",
        "'; DROP TABLE ranking; --",
        '"; select 1',
        "<script>alert(1)</script>",
    ),
    *("%s {0} $x $1", "| a | b |", "a\nb\x1b[31m\u202e", "*", "c" * 3000),
]
SENTENCE = b"The river and the stone go on to the harbour in the evening. "


def by_source(record: dict[str, Any], stage: str = "ingest") -> dict[str, dict[str, Any]]:
    return {Path(job["source"]).name: job for job in record["shards"] if job["stage"] == stage}


def test_every_hostile_file_in_one_run(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    folder = shutil.copytree(HOSTILE, tmp_path / "hostile", symlinks=True)
    for name in ("README.md", "EXPECTED.tsv"):
        (folder / name).unlink(missing_ok=True)
    dangling = folder / "71_dangling_symlink.jsonl"
    dangling.unlink(missing_ok=True)
    dangling.symlink_to("nowhere")
    named_like_a_file = folder / "70_directory_named.jsonl"
    named_like_a_file.mkdir(exist_ok=True)
    write_jsonl(named_like_a_file / "inside.jsonl", "Inside", 5, [300])
    store = tmp_path / "store"
    settings = [f"sources=[{folder}, {corpus.folder}]"]
    answer = ladm(*run_arguments(corpus, store, *settings, "ingest.pack_bytes=0"))  # a job a file
    assert answer.code == 0, answer.err
    assert "Traceback" not in answer.err
    record = answer.record
    jobs = by_source(record)
    expected = {**expected_here(), dangling.name: "dangling symbolic link", "inside.jsonl": (1, 0)}
    assert set(jobs) == {*expected, "letters.jsonl", "poems.jsonl"}
    reasons = {
        Path(row["source"]).name: row["reason"]
        for row in rows_of(ladm, store, "select source, reason from quarantine where line is null")
    }
    for name, outcome in expected.items():
        job = jobs[name]
        assert job["in"] == job["kept"] + job["quarantined"], name
        if isinstance(outcome, str):
            assert (job["kept"], job["shards"]) == (0, []), name
            assert outcome in reasons[name]
        else:
            assert (job["kept"], job["quarantined"]) == outcome, name
            assert name not in reasons
    assert record["quarantined"]["files"] == sum(isinstance(outcome, str) for outcome in expected.values())
    ranked = rows_of(ladm, store, "select source, score from ranking join documents using (doc_id)")
    assert all(abs(row["score"]) < float("inf") for row in ranked)
    assert sum(row["source"].endswith(("letters.jsonl", "poems.jsonl")) for row in ranked) == 7
    # The domain is a name, never a path: all that was written is below the store.
    assert {path.name for path in tmp_path.iterdir()} == {"hostile", "corpus", "store"}
    # Read in groups, as small files are, they come to the same.
    packed = ladm(*run_arguments(corpus, tmp_path / "packed", *settings))
    assert packed.code == 0, packed.err
    assert packed.record["stages"]["ingest"]["run"] < record["stages"]["ingest"]["run"]
    assert packed.record["quarantined"] == record["quarantined"]
    kept = [{name: one["stages"]["ingest"][name] for name in ("in", "kept")} for one in (packed.record, record)]
    assert kept[0] == kept[1]
    query = "select parse_filename(source) as source, score from ranking join documents using (doc_id) order by all"
    assert rows_of(ladm, tmp_path / "packed", query) == rows_of(ladm, store, query)


def test_a_domain_is_a_name_and_nothing_else(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    (corpus.folder / "letters.jsonl").unlink()
    (corpus.folder / "poems.jsonl").unlink()
    for number, domain in enumerate(DOMAINS):
        write_jsonl(corpus.folder / f"{number}.jsonl", domain, number, [300])
    store = tmp_path / "store"
    select = {"allocation": "quotas", "quotas": [{"domain": domain, "tokens": 5000} for domain in DOMAINS]}
    exports = ["parquet", "jsonl.zst", "datasets", *({"format": name, "eos": 0} for name in ("mds", "megatron", "npy"))]
    settings = [f"select={json.dumps(select)}", f"export={json.dumps(exports)}"]
    answer = ladm(*run_arguments(corpus, store, *settings))
    assert answer.code == 0, answer.err
    assert all(line.isprintable() for line in answer.err.splitlines())
    for view in ("ranking", "selected", "allocation"):
        assert [row["domain"] for row in rows_of(ladm, store, f"select domain from {view} order by 1")] == sorted(
            DOMAINS
        )
    table = ladm("sql", "from ranking", "--store", store)
    assert all(line.isprintable() for line in table.out.splitlines())
    folder = store / "runs" / answer.record["run_id"]
    assert sorted(pq.read_table(folder / "export/parquet")["domain"].to_pylist()) == sorted(DOMAINS)
    # Where it is shown it is text, one row each: in the card's tables as in the report's.
    card = (folder / "export/README.md").read_text(encoding="utf-8")
    assert r"\<script\>" in card
    assert not re.search(r"(?<!\\)<script", card.split("```")[0])
    assert len(re.findall(r"^\|.*\n", card.split("## Domains")[1].split("##")[0], re.MULTILINE)) == 2 + len(DOMAINS)
    assert ladm("report", "--store", store).code == 0
    page = page_of(store, answer.record["run_id"])
    assert sorted(row["domain"] for row in page.tables["domains-table"]) == sorted(map(shown, DOMAINS))
    # No file is called by it, and none lies outside the store.
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "store"}
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in store.rglob("*"))


def test_what_is_no_file_is_quarantined_by_name(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    os.mkfifo(corpus.folder / "pipe.jsonl")
    (corpus.folder / "device.jsonl").symlink_to("/dev/zero")
    (corpus.folder / "empty folder.jsonl").mkdir()
    answer = ladm(*run_arguments(corpus, tmp_path / "store"), "--until", "ingest")
    assert answer.code == 0, answer.err
    found = rows_of(ladm, tmp_path / "store", "select source, line, reason from quarantine order by source")
    assert [(Path(row["source"]).name, row["line"]) for row in found] == [("device.jsonl", None), ("pipe.jsonl", None)]
    assert {row["reason"] for row in found} == {"no file but a device, a socket or a pipe"}
    assert answer.record["stages"]["ingest"]["kept"] == 9


def test_what_may_not_be_read_is_quarantined_by_name(
    tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_anybody: list[str] = []
    if os.geteuid() == 0:  # whom no permission stops, unless that is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and there is no setpriv to give that up")
        as_anybody = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    (corpus.folder / "closed").mkdir()
    write_jsonl(corpus.folder / "closed" / "inside.jsonl", "Inside", 1, [300])
    write_jsonl(corpus.folder / "secret.jsonl", "Secret", 2, [300])
    for name in ("closed", "secret.jsonl"):
        (corpus.folder / name).chmod(0)
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    try:
        with prefect_server(cache_root()):
            monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
            monkeypatch.setenv("PREFECT_API_AUTH_STRING", str(PREFECT_API_AUTH_STRING.value()))
            arguments = run_arguments(corpus, tmp_path / "store", f"sources={corpus.folder}")
            command = [*as_anybody, sys.executable, "-m", "ladm.flows.cli", *arguments, "--until", "ingest"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    finally:
        for name in ("closed", "secret.jsonl"):
            (corpus.folder / name).chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["quarantined"] == {"records": 2, "files": 2}
    found = rows_of(ladm, tmp_path / "store", "select source, reason from quarantine order by source")
    assert [(Path(row["source"]).name, row["reason"]) for row in found] == [
        ("closed", "a folder that cannot be listed"),
        ("secret.jsonl", "permission denied"),
    ]


def write_one_long_document(path: Path, size: int, domain: str) -> None:
    """A document of so many bytes between two of ordinary length, compressed."""
    ordinary = json.dumps({"text": (SENTENCE * 40).decode(), "meta": {"pile_set_name": domain}}).encode() + b"\n"
    block = SENTENCE * 2**14
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as packed:
        packed.write(ordinary + b'{"text": "')
        for _ in range(size // len(block)):
            packed.write(block)
        packed.write(SENTENCE * (size % len(block) // len(SENTENCE)))
        packed.write(b'", "meta": {"pile_set_name": "%s"}}\n' % domain.encode() + ordinary)


def test_a_line_of_20_mb_is_a_document_like_any_other(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    write_one_long_document(corpus.folder / "long.jsonl.zst", 20 * 10**6, "Long")
    answer = ladm(*run_arguments(corpus, tmp_path / "store", f"sources={corpus.folder}"))
    assert answer.code == 0, answer.err
    rows = rows_of(ladm, tmp_path / "store", "select line, bytes from ranking join documents using (doc_id) "
                   "where ranking.domain = 'Long' order by line")  # fmt: skip
    assert [row["line"] for row in rows] == [1, 2, 3]
    assert 19.9e6 < rows[1]["bytes"] <= 20e6


PEAK = """
import atexit, resource, sys
atexit.register(lambda: print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr))
"""


@pytest.mark.slow
def test_a_document_of_1_gb(tmp_path: Path, corpus: Corpus) -> None:
    """By default it is quarantined, at no cost of memory; who asks for it gets it, at some twelve times its size."""
    peaks = {}
    for name, more in (("without", []), ("refused", []), ("read", ["max_record_bytes=2000000000"])):
        if name == "refused":
            write_one_long_document(corpus.folder / "long.jsonl.zst", 10**9, "Long")
        source = ", ".join([f"uri: {corpus.folder}", *(setting.replace("=", ": ") for setting in more)])
        process = start(run_arguments(corpus, tmp_path / name, f"sources=[{{{source}}}]"), PEAK)
        out, log = process.communicate(timeout=1200)
        assert process.returncode == 0, log
        peaks[name] = int(re.findall(r"^peak (\d+)$", log, re.MULTILINE)[-1]) * 1024
        record = json.loads(out)
        kept = {"without": 9, "refused": 11, "read": 12}[name]
        assert record["stages"]["ingest"]["kept"] == kept
        assert record["stages"]["ingest"]["quarantined"] == (name == "refused")
        assert record["stages"]["rank"]["documents"] == kept - 2
    print({name: f"{peak / 1e9:.2f} GB" for name, peak in peaks.items()})
    assert peaks["refused"] - peaks["without"] < 3e8, peaks  # max_record_bytes is 134 MB
    assert peaks["read"] - peaks["without"] < 13e9, peaks  # 12.0 GB when this was written
