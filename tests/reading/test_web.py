"""Sources on web servers: without a length, without ranges, with a page that lists them, and changed at one size."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

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
