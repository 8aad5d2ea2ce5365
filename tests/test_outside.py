"""What the machine or a server does to a command is told in one line; a bug shows where it is."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows import cli
from ladm.flows.outside import why_outside
from ladm.tasks.errors import ConfigError
from ladm.tasks.storage.file_systems import reached

Cli = Callable[..., Answer]
ANSWER = httpx.Response(500, request=httpx.Request("POST", "http://127.0.0.1:1/api/flows/"))
OUTSIDE: list[tuple[Exception, str]] = [
    (OSError(errno.ENOSPC, "No space left on device", "/full/x"), "/full/x: No space left on device; make room"),
    (OSError(errno.EROFS, "Read-only file system", "/ro"), "/ro: Read-only file system; give the user"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied; give the user"),
    (OSError(errno.EMFILE, "Too many open files"), "Too many open files; raise this process's limits"),
    (OSError(errno.EIO, "Input/output error", "/x"), "/x: Input/output error; look at the disk"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "/a\nb"), "/a b: Is a directory; name another file"),
    (MemoryError(), "out of memory; "),
    (
        UnicodeEncodeError("ascii", "données", 3, 4, "no"),
        "the locale knows ASCII alone, and 'donn\\xe9es' is more; unset",
    ),
    (httpx.HTTPStatusError("500 Internal", request=ANSWER.request, response=ANSWER), "Prefect's server failed (500 "),
    (httpx.ConnectError("All connection attempts failed"), "Prefect's server failed (All connection attempts failed"),
    (RuntimeError("Failed to reach API at http://127.0.0.1:1/api/"), "Prefect's server failed (Failed to reach API"),
]
BUGS: list[Exception] = [
    KeyError("x"),
    RuntimeError("x"),
    AssertionError(),
    OSError("no number"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "ours"),
]


@pytest.mark.parametrize(("error", "line"), OUTSIDE)
def test_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "gc", command)
    assert cli.main(["gc", "--keep", "1"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"ladm: {line}")


@pytest.mark.parametrize("error", BUGS)
def test_a_bug_is_shown(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(_: object) -> int:
        raise error

    assert why_outside(error) is None
    monkeypatch.setattr(cli, "gc", command)
    with pytest.raises(type(error)):
        cli.main(["gc", "--keep", "1"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_results_that_cannot_be_written(tiny_model: Path) -> None:
    program = "import sys; from ladm.flows.cli import main; sys.exit(main())"
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", program, "model", "fetch", str(tiny_model)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == "ladm: standard output: No space left on device; send it to another place\n"


def test_a_cache_without_room_is_named_before_any_work(tmp_path: Path, corpus: Corpus) -> None:
    """By a limit on the size of files, which stands for a full disk."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    program = "import sys; from ladm.flows.cli import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", program, *run_arguments(corpus, tmp_path / "store")],
        env={**os.environ, "LADM_CACHE": str(tmp_path / "cache")},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("ladm: LADM_CACHE: the cache ")
    assert line.endswith("set LADM_CACHE to a folder that can be")
    assert not list((tmp_path / "cache").glob(".tmp*"))
    assert not (tmp_path / "store").exists()


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    program = "import os, sys; os.rmdir(os.getcwd()); from ladm.flows.cli import main; sys.exit(main())"
    for command in (["run"], ["sql", "select 1"], ["init", "x"]):
        (tmp_path / "gone").mkdir()
        ended = subprocess.run(
            [sys.executable, "-c", program, *command],
            cwd=tmp_path / "gone",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == "ladm: the working folder is gone (No such file or directory); cd to another\n"


def test_a_store_that_is_mounted_to_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(_: object) -> int:
        with reached("--store", str(tmp_path)):
            raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cli, "gc", command)
    with pytest.raises(ConfigError, match=r"--store: '.*' cannot be written \(Read-only file system\); mount it"):
        command(None)
    assert cli.main(["gc", "--keep", "1"]) == 2
