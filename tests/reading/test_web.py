"""Sources on web servers: without a length, without ranges, with a page that lists them, and changed at one size."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from ladm.tasks.errors import SourceError
from ladm.tasks.job import Job
from ladm.tasks.reading.readers import SourceConfig
from ladm.tasks.reading.sources import check_unchanged, list_sources
from ladm.tasks.stages.ingest import IngestConfig, ingest, ingest_key_config

LINE = b'{"text": "a text"}\n'


class Server(http.server.SimpleHTTPRequestHandler):
    """As the mode says: `plain`; `chunked` sends no length; `bare` tells no date either; `nohead` refuses HEAD."""

    protocol_version = "HTTP/1.1"
    mode = "plain"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer HEAD."""
        if self.mode == "nohead":
            self.send_error(405)
        else:
            self.answer(body=False)

    def do_GET(self) -> None:
        """Answer GET."""
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        """Send a file in chunks, or as the standard library does."""
        path = Path(self.translate_path(self.path))
        if self.mode == "plain" or not path.is_file():
            super().do_GET() if body else super().do_HEAD()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        if self.mode != "bare":
            self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        if body:
            content = path.read_bytes()
            with contextlib.suppress(ConnectionError):  # whoever asked has seen enough
                for start in range(0, len(content), 1000):
                    piece = content[start : start + 1000]
                    self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")


@pytest.fixture(params=["plain", "chunked", "bare", "nohead"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A server's address; it serves `tmp_path`."""
    (tmp_path / "a.jsonl").write_bytes(LINE * 500)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.jsonl").write_bytes(LINE)
    (tmp_path / "deep/empty.jsonl").write_bytes(b"")
    os.utime(tmp_path / "a.jsonl", (10**9, 10**9))
    handler = type("Handler", (Server,), {"mode": request.param})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def kept(entry: object, store: Path) -> int:
    from ladm.tasks.reading.sources import ListedFile

    assert isinstance(entry, ListedFile)
    config = ingest_key_config(entry.config, IngestConfig())
    job = Job(stage="ingest", label="x", store=str(store), config=config, source=entry.file)
    from ladm.tasks.storage.store import Store

    return ingest(job, Store(str(store)), "key").counts.kept


def test_files_are_listed_and_read_whatever_the_server_tells(address: str, tmp_path: Path) -> None:
    (one,) = list_sources([SourceConfig(uri=f"{address}/a.jsonl")])
    assert kept(one, tmp_path / "store") == 500
    assert {entry.file.uri for entry in list_sources([SourceConfig(uri=f"{address}/deep/")])} == {
        f"{address}/deep/b.jsonl",
        f"{address}/deep/empty.jsonl",
    }
    (listed,) = list_sources([SourceConfig(uri=f"{address}/*.jsonl")])
    assert listed.file == one.file
    (deep,) = list_sources([SourceConfig(uri=f"{address}/deep/b*.jsonl")])
    assert kept(deep, tmp_path / "store") == 1
    (empty,) = list_sources([SourceConfig(uri=f"{address}/deep/empty.jsonl")])
    assert kept(empty, tmp_path / "store") == 0
    with pytest.raises(SourceError, match="no file matches"):
        list_sources([SourceConfig(uri=f"{address}/none.jsonl")])


def test_a_change_at_the_same_size_is_noticed(address: str, tmp_path: Path) -> None:
    source = [SourceConfig(uri=f"{address}/a.jsonl")]
    (before,) = list_sources(source)
    assert list_sources(source) == [before]
    check_unchanged(before.file)
    (tmp_path / "a.jsonl").write_bytes(LINE.replace(b"a text", b"b text") * 500)
    assert list_sources(source) != [before]
    with pytest.raises(SourceError, match="changed while the run"):
        check_unchanged(before.file)


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers every request by a status, or where that is 0, by nothing: the connection ends."""

    status = 0

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        if self.status:
            self.send_response(self.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        self.close_connection = True

    do_HEAD = do_GET  # noqa: N815


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("below", ["/a.jsonl", "/deep/", "/*.jsonl"])
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0, "disconnected"),
        (401, "401"),
        (403, "403"),
        (500, "500"),
        (503, "503"),
        (404, "no file matches|404"),
    ],
)
def test_a_server_that_does_not_give_a_file_is_one_line_that_says_why(status: int, reason: str, below: str) -> None:
    with (
        serving(type("Handler", (Refusing,), {"status": status})) as address,
        pytest.raises(SourceError, match=rf"^sources\[0\]\.uri: .*({reason})") as refused,
    ):
        list_sources([SourceConfig(uri=f"{address}{below}")])
    assert "\n" not in str(refused.value)


def test_a_server_that_is_not_there_is_one_line() -> None:
    for address in ("http://127.0.0.1:9", "http://nowhere.invalid", "https://127.0.0.1:9"):
        for below in ("/a.jsonl", "/*.jsonl"):
            with pytest.raises(SourceError, match=r"^sources\[0\]\.uri: .* cannot be listed: ") as refused:
                list_sources([SourceConfig(uri=address + below)])
            assert "\n" not in str(refused.value)


class Proxy(Server):
    """A proxy that has what it is asked for: a whole address in place of a path."""

    asked: ClassVar[list[str]] = []

    def translate_path(self, path: str) -> str:
        """The file that an address stands for."""
        Proxy.asked.append(path)
        return super().translate_path(urllib.parse.urlsplit(path).path)


def test_a_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE)
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(functools.partial(Proxy, directory=str(tmp_path))) as proxy:  # type: ignore[arg-type]
        monkeypatch.setenv("http_proxy", proxy)
        (one,) = list_sources([SourceConfig(uri="http://corpus.invalid/a.jsonl")])
        assert kept(one, tmp_path / "store") == 1
        assert "http://corpus.invalid/a.jsonl" in Proxy.asked
        monkeypatch.setenv("no_proxy", "corpus.invalid")
        with pytest.raises(SourceError, match="cannot be listed"):
            list_sources([SourceConfig(uri="http://corpus.invalid/a.jsonl")])


@pytest.mark.parametrize("uri", ["data:,hello", "data:text/plain", "data:;base64,!", "webhdfs://127.0.0.1:9/x"])
def test_what_other_file_systems_raise_is_one_line(uri: str) -> None:
    with pytest.raises(SourceError, match=r"^sources\[0\]\.uri: ") as refused:
        list_sources([SourceConfig(uri=uri)])
    assert "\n" not in str(refused.value)
