"""The cache folder: where it is, and the one line where it cannot be."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.orchestration.environment import quiet_prefect
from ladm.tasks.errors import ConfigError
from ladm.tasks.models.cache import cache_root, ready_cache


@pytest.fixture(autouse=True)
def _no_cache_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LADM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for `docker run -u 54321`, with HOME unset."""

    def nobody(_: object) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/curator")
    monkeypatch.chdir(tmp_path)
    assert cache_root() == Path("/home/curator/.cache/ladm")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/var")
    assert cache_root() == Path("/home/curator/var/ladm")
    for given, meant in (("$HOME/c", "/home/curator/c"), ("~/c", "/home/curator/c"), ("c", f"{tmp_path}/c")):
        monkeypatch.setenv("LADM_CACHE", given)
        assert cache_root() == Path(meant)


def test_one_line_where_there_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    without_home(monkeypatch)
    with pytest.raises(ConfigError, match=r"^LADM_CACHE: there is no home folder .* set LADM_CACHE to a folder"):
        cache_root()
    monkeypatch.setenv("LADM_CACHE", "$NOWHERE_AT_ALL/c")
    with pytest.raises(ConfigError, match=r"^LADM_CACHE: \$NOWHERE_AT_ALL in"):
        cache_root()


def test_a_cache_is_home_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "")  # to be set back after the test
    without_home(monkeypatch)
    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "cache"))
    quiet_prefect(ready_cache())
    assert os.environ["HOME"] == str(tmp_path / "cache")


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/cache", "{file}"])
def test_one_line_where_it_cannot_be_written(
    place: str, tmp_path: Path, corpus: Corpus, ladm: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LADM_CACHE", place.format(file=tmp_path / "file"))
    for command in (run_arguments(corpus, tmp_path / "store"), ["evaluate"], ["serve", "--cron", "0 2 * * *"]):
        answer = ladm(*command)
        assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1), answer.err
        assert "LADM_CACHE" in answer.err
        assert answer.err.startswith("ladm: LADM_CACHE: the cache ") or command == ["evaluate"]
