"""Proxies and certificates of the user's environment: our own server is untouched by them, or one line names them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.orchestration import network
from ladm.flows.orchestration.network import settle_network
from ladm.tasks.errors import UserError

NAMES = [name for lower in (*network.PROXIES, "no_proxy") for name in (lower, lower.upper())]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "")  # to be set back after the test
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    ("proxy", "why"),
    [
        ("socks5://127.0.0.1:1080", "SOCKS needs the package socksio"),
        ("socks5h://user:pw@127.0.0.1:1080", "SOCKS needs the package socksio"),
        ("socks4://127.0.0.1:1080", "not a proxy of a known kind"),
        ("direct://", "not a proxy of a known kind"),
        ("http://proxy:port", "it is not an address"),
        ("http://[::1", "it is not an address"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_left_out(
    name: str, proxy: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv(name, proxy)
    (line,) = settle_network()
    assert line.startswith(f"{name}: ")
    assert why in line
    assert "pw" not in line
    assert name not in os.environ
    httpx.Client().close()


@pytest.mark.parametrize("proxy", ["http://proxy:3128", "https://user:pw@proxy", "proxy:3128", "http://[::1]:3128"])
def test_a_proxy_that_can_be_used_stays(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "internal")
    assert settle_network() == []
    assert (os.environ["HTTPS_PROXY"], os.environ["NO_PROXY"]) == (proxy, "internal,127.0.0.1,localhost")
    assert settle_network() == []
    assert os.environ["NO_PROXY"] == "internal,127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("hosts", "kept"),
    [
        ("10.0.0.0/8, 192.168.0.0/16,.corp", "10.0.0.0/8,192.168.0.0/16,.corp,"),
        ("fd00::/8,a.b", "a.b,"),
        ("::1,fe80::/10", "::1,"),
        ("[::1],[::1]:8080", ""),
        ("host:port,host:80", "host:80,"),
        ("ümlaut.de,*", "*,"),
        (" , ,", ""),
    ],
)
def test_no_proxy_keeps_what_can_be_understood(hosts: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", hosts)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    settle_network()
    assert os.environ["NO_PROXY"] == f"{kept}127.0.0.1,localhost"
    httpx.Client().close()


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, reason in (
        (tmp_path / "nowhere.pem", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "empty.pem", "it holds no certificate"),
    ):
        if path.name == "empty.pem":
            path.write_text("no certificate")
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        with pytest.raises(
            UserError, match=rf"^SSL_CERT_FILE: .*{path.name}' cannot be read \({reason}\); name a file"
        ):
            settle_network()


def test_a_run_with_them(
    corpus: Corpus, ladm: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*run_arguments(corpus, tmp_path / "store"), "--until", "ingest"]
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    answer = ladm(*command)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1), answer.err
    assert answer.err.startswith("ladm: SSL_CERT_FILE: ")
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "fd00::/8")
    answer = ladm(*command)
    assert answer.code == 0, answer.err
    assert "ALL_PROXY: socks4://127.0.0.1:9 is left out" in answer.err
