"""An S3 server that is out of reach for more than a minute: each request waits for it, with the clock wound forward."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import fsspec.asyn
import pytest
import s3fs
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ProxyConnectionError,
)

from ladm.tasks.errors import ConfigError
from ladm.tasks.storage import s3_patience
from ladm.tasks.storage.file_systems import io_errors, opened, reached
from ladm.tasks.storage.store import Store

OBJECT = b"what the object holds"


class Answering(http.server.BaseHTTPRequestHandler):
    """As much of S3 as reading and writing one object takes."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(OBJECT)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(OBJECT if self.command == "HEAD" else body)))
        self.send_header("ETag", '"5"')
        self.send_header("Last-Modified", "Mon, 02 Mar 2026 10:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class FailingAtFirst(Answering):
    """Answers that it is at fault itself, to begin with."""

    left = 10
    code = "ServiceUnavailable"

    def answer(self, body: bytes) -> None:
        if type(self).left <= 0:
            super().answer(body)
            return
        type(self).left -= 1
        text = f"<Error><Code>{self.code}</Code><Message>later</Message></Error>".encode()
        self.send_response(503)
        self.send_header("Content-Length", "0" if self.command == "HEAD" else str(len(text)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else text)


class Outage:
    """A server that is not there until so many seconds have been waited; they pass at once."""

    def __init__(self, port: int, seconds: float) -> None:
        self.port, self.seconds = port, seconds
        self.waited = 0.0
        self.server: http.server.ThreadingHTTPServer | None = None

    async def sleep(self, seconds: float, *more: Any) -> None:
        if threading.current_thread() is not fsspec.asyn.iothread[0]:  # Prefect's, say, of a test before
            await REAL_SLEEP(seconds, *more)
            return
        self.waited += seconds
        if self.waited >= self.seconds and self.server is None:
            self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Answering)
            threading.Thread(target=self.server.serve_forever, daemon=True).start()
        await REAL_SLEEP(0)


REAL_SLEEP = asyncio.sleep


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port on which nothing listens yet; S3 is looked for there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{number}",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # one that is kept asks the server of before
    return number


@pytest.fixture
def outage(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Outage]]:
    begun: list[Outage] = []

    def begin(seconds: float) -> Outage:
        begun.append(Outage(port, seconds))
        monkeypatch.setattr(asyncio, "sleep", begun[-1].sleep)
        return begun[-1]

    yield begin
    for one in begun:
        if one.server:
            one.server.shutdown()
            one.server.server_close()


@pytest.mark.parametrize("seconds", [20, 60, 65])
def test_reading_and_writing_wait_for_a_server_that_is_gone(seconds: float, outage: Callable[[float], Outage]) -> None:
    store = Store("s3://bucket/prefix")
    gone = outage(seconds)
    assert store.read_bytes("a") == OBJECT
    assert gone.waited >= seconds


def test_a_source_is_waited_for(outage: Callable[[float], Outage]) -> None:
    gone = outage(61)
    with opened("s3://bucket/raw/a.jsonl") as file:
        assert file.read() == OBJECT
    assert gone.waited >= 61


def test_an_upload_is_waited_for(outage: Callable[[float], Outage]) -> None:
    store = Store("s3://bucket/prefix")
    gone = outage(61)
    store.write_bytes("a", OBJECT)
    assert gone.waited >= 61


def test_a_server_that_stays_away_is_given_up(outage: Callable[[float], Outage]) -> None:
    gone = outage(1e9)
    with pytest.raises(io_errors(), match="Could not connect"):
        Store("s3://bucket/prefix").read_bytes("a")
    assert 60 < gone.waited < 300


def test_before_any_work_a_server_that_is_not_there_is_refused_within_seconds(port: int) -> None:
    began = time.monotonic()
    refusal = pytest.raises(ConfigError, match="--store: 's3://bucket/prefix' cannot be reached")
    with refusal, reached("--store", "s3://bucket/prefix"):
        pass
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("code", ["ServiceUnavailable", "InternalError", "SlowDown"])
def test_a_server_that_says_it_is_at_fault_is_asked_again(
    code: str, port: int, outage: Callable[[float], Outage]
) -> None:
    outage(1e9)

    class Failing(FailingAtFirst):
        pass

    Failing.code = code
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert Store("s3://bucket/prefix").read_bytes("a") == OBJECT
        finally:
            server.shutdown()
    assert Failing.left == 0


def refused(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (EndpointConnectionError(endpoint_url="http://s3"), True),
        (ConnectTimeoutError(endpoint_url="http://s3"), True),
        (ProxyConnectionError(proxy_url="http://proxy"), True),
        (refused(500, "InternalError"), True),
        (refused(503, "SlowDown"), True),
        (refused(400, "RequestTimeout"), True),
        (refused(403, "AccessDenied"), False),
        (refused(404, "NoSuchKey"), False),
        (NoCredentialsError(), False),
        (ValueError("ours"), False),
    ],
)
def test_what_another_try_may_help(error: Exception, may: bool) -> None:
    assert s3_patience.may_pass(error) is may


def test_the_users_own_number_of_tries_has_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_patience.patience_options() == {"config_kwargs": {"retries": {"max_attempts": 1}}}
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    assert s3_patience.patience_options() == {}


def test_a_handler_of_the_users_own_is_still_asked() -> None:
    asked = []
    before = s3fs.core.CUSTOM_ERROR_HANDLER
    try:
        s3fs.core.set_custom_error_handler(lambda error: bool(asked.append(error)) or True)
        s3_patience._tell_s3fs.__wrapped__()
        assert s3fs.core.CUSTOM_ERROR_HANDLER(ValueError("theirs")) is True
        assert len(asked) == 1
    finally:
        s3fs.core.set_custom_error_handler(before)
