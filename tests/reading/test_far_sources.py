"""Sources on the Hugging Face Hub, by a stand-in for its server, and on stores whose packages are not there."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.tasks.errors import SourceError
from ladm.tasks.reading.readers import SourceConfig
from ladm.tasks.reading.sources import list_sources
from ladm.tasks.storage.file_systems import io_errors

Cli = Callable[..., Answer]
KNOWN: dict[str, Any] = sys.modules["fsspec.registry"]._registry  # type: ignore[attr-defined]
"""Protocol → its file system, of those that were used."""
COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as listing and reading a data set takes. `org/private` is there for the token `secret`."""

    files: ClassVar[dict[str, dict[str, bytes]]] = {}
    """Revision → path → content."""
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, with_body: bool = True) -> None:
        path = self.path.partition("?")[0]
        Hub.asked.append(path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content, headers = 404, b"{}", {"X-Error-Code": "RepoNotFound"}
        may = "private" not in path or self.headers.get("Authorization") == "Bearer secret"
        if not may:
            status = 401
        elif path == "/":
            status, headers = 200, {}
        elif found := re.fullmatch(r"/api/datasets/org/\w+(?:/revision/(\w+))?", path):
            revision = self._revision(found[1] or "main")
            if revision:
                status, headers = 200, {}
                content = json.dumps({"id": "org/books", "sha": COMMITS[revision], "siblings": []}).encode()
            else:
                headers = {"X-Error-Code": "RevisionNotFound"}
        elif found := re.fullmatch(r"/api/datasets/org/\w+/tree/(\w+)/?(.*)", path):
            status, headers, content = 200, {}, json.dumps(self._tree(found[1], found[2])).encode()
        elif found := re.fullmatch(r"/api/datasets/org/\w+/paths-info/(\w+)", path):
            asked = re.findall(r"data[\w./]*", body.decode().replace("%2F", "/"))
            told = [one for one in self._tree(found[1], "") if one["path"] in asked]
            status, headers, content = 200, {}, json.dumps(told).encode()
        elif found := re.fullmatch(r"/datasets/org/\w+/resolve/(\w+)/(.*)", path):
            content = self.files[self._revision(found[1]) or "main"][found[2]]
            status, headers = 200, {"ETag": '"x"', "X-Repo-Commit": COMMITS["main"], "Accept-Ranges": "bytes"}
            if part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                content, whole = content[int(part[1]) : int(part[2]) + 1], len(content)
                status = 206
                headers["Content-Range"] = f"bytes {part[1]}-{int(part[1]) + len(content) - 1}/{whole}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _revision(self, name: str) -> str | None:
        return next((one for one, commit in COMMITS.items() if name in (one, commit)), None)

    def _tree(self, revision: str, below: str) -> list[dict[str, object]]:
        files = self.files[self._revision(revision) or "main"]
        folders = {path.rsplit("/", 1)[0] for path in files}
        told: list[dict[str, object]] = [
            {"type": "file", "oid": f"{hash(content) % 16**8:040x}", "size": len(content), "path": path}
            for path, content in files.items()
        ]
        told += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in folders]
        return [one for one in told if str(one["path"]).startswith(below) and one["path"] != below.rstrip("/")]


@pytest.fixture
def hub(corpus: Corpus) -> Iterator[str]:
    """The address of a Hub that has the corpus as the data set `org/books`, on `main` and, less a file, on `v1`."""
    files = {f"data/{file.name}": file.read_bytes() for file in sorted(corpus.folder.iterdir())}
    Hub.files = {"main": files, "v1": dict(list(files.items())[:1])}
    Hub.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


LISTS = """
import sys
from ladm.tasks.errors import SourceError
from ladm.tasks.reading.readers import SourceConfig, read_records
from ladm.tasks.reading.sources import list_sources
from ladm.tasks.storage.file_systems import opened
try:
    for one in list_sources([SourceConfig(uri=sys.argv[1])]):
        with opened(one.file.uri) as file:
            print(one.file.name, one.file.size, sum(1 for _ in read_records(file, one.file.uri, one.config)))
except SourceError as error:
    print("refused:", error)
"""


def listed(uri: str, tmp_path: Path, **variables: str) -> str:
    """What a process of its own finds: the Hub's client looks at its variables once."""
    environment = {name: one for name, one in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", LISTS, uri], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip()


def test_a_data_set_of_the_hub_is_listed_and_read(hub: str, tmp_path: Path, corpus: Corpus) -> None:
    sizes = {name: (corpus.folder / name).stat().st_size for name in ("letters.jsonl", "poems.jsonl")}
    both = f"letters.jsonl {sizes['letters.jsonl']} 5\npoems.jsonl {sizes['poems.jsonl']} 4"
    for below in ("@main/data/*.jsonl", "/data", f"@{COMMITS['main']}/data/*.jsonl"):
        assert listed(f"hf://datasets/org/books{below}", tmp_path, HF_ENDPOINT=hub) == both
    assert listed("hf://datasets/org/books@v1/data", tmp_path, HF_ENDPOINT=hub) == both.splitlines()[0]
    assert listed("hf://datasets/org/books/data/poems.jsonl", tmp_path, HF_ENDPOINT=hub) == both.splitlines()[1]
    private = "hf://datasets/org/private/data/poems.jsonl"
    assert listed(private, tmp_path, HF_ENDPOINT=hub, HF_TOKEN="secret") == both.splitlines()[1]


def test_what_the_hub_does_not_give_is_one_line(hub: str, tmp_path: Path) -> None:
    for uri in (
        "hf://datasets/org/private/data",
        "hf://datasets/org/books@nowhere/data",
        "hf://datasets/org/books/none/*.jsonl",
        "hf://nonsense",
    ):
        line = listed(uri, tmp_path, HF_ENDPOINT=hub)
        assert line.startswith("refused: sources[0].uri: "), line
        assert "set HF_TOKEN" in line
        assert "\n" not in line


def test_without_a_network_one_line_comes_quickly(tmp_path: Path) -> None:
    begin = time.monotonic()
    told = {
        "http://127.0.0.1:9": "http://127.0.0.1:9 does not answer: ",
        "http://hub.invalid": "http://hub.invalid does not answer: ",
    }
    for endpoint, said in told.items():
        uri = "hf://datasets/org/books@main/data/*.parquet"
        line = listed(uri, tmp_path, HF_ENDPOINT=endpoint, NO_PROXY="*")
        assert line.startswith(f"refused: sources[0].uri: {uri!r} cannot be reached")
        assert said in line
        assert "or set HF_ENDPOINT to a mirror" in line
        assert "\n" not in line
    offline = listed("hf://datasets/org/books", tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set, so that nothing is asked of the Hugging Face Hub; unset it" in offline
    assert time.monotonic() - begin < 100


def test_a_server_that_swallows_requests_is_given_up(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        line = listed("hf://datasets/org/books", tmp_path, HF_ENDPOINT=address)
    assert f"{address} does not answer: " in line


@pytest.mark.parametrize(
    ("uri", "package"),
    [("gs://b/x", "gcsfs"), ("gcs://b/*.jsonl", "gcsfs"), ("az://c/x", "adlfs"), ("abfs://c/x.parquet", "adlfs")],
)
def test_a_package_that_is_not_there_is_named(uri: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for protocol in ("gs", "gcs", "az", "abfs"):
        monkeypatch.delitem(KNOWN, protocol, raising=False)
    with pytest.raises(SourceError) as refused:
        list_sources([SourceConfig(uri=uri)])
    assert str(refused.value) == (
        f"sources[0].uri: {uri!r} is not a path or URL that can be read (the package {package} is not installed; "
        f"pip install {package})"
    )


@pytest.mark.parametrize("protocol", ["gs", "az"])
def test_a_run_reads_such_a_store_where_its_package_is_there(
    tmp_path: Path, corpus: Corpus, ladm: Cli, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the package: a file system in memory of that protocol."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return f"/{path.removeprefix(f'{protocol}://').strip('/')}"

    Bucket.protocol = protocol  # type: ignore[assignment]
    monkeypatch.setitem(KNOWN, protocol, Bucket)
    for file in corpus.folder.iterdir():
        Bucket().pipe(f"/far/{protocol}/{file.name}", file.read_bytes())
    store = tmp_path / "store"
    assert ladm(*run_arguments(corpus, store), "--until", "tokenize").code == 0
    sources = f"sources=[{{uri: '{protocol}://far/{protocol}/*.jsonl'}}]"
    answer = ladm(*run_arguments(corpus, store, sources), "--until", "tokenize")
    assert answer.code == 0, answer.err
    assert answer.record["stages"]["ingest"]["kept"] == 9
    assert answer.record["stages"]["tokenize"]["run"] == 0  # what was made from the disk is good here, too


def test_what_clients_raise_of_their_own_is_known() -> None:
    import httpx

    assert issubclass(httpx.ConnectError, io_errors())
    assert issubclass(httpx.HTTPError, io_errors())
