"""What our own servers write down, no other user of the machine can read."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ladm.flows.orchestration.prefect_settings import are_given
from ladm.flows.orchestration.private_folder import give_prefect_a_home, private_file, private_folder
from ladm.tasks.errors import ConfigError

A_RUN = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from ladm.flows.orchestration.environment import prefect_server, quiet_prefect
cache = Path(sys.argv[1])
quiet_prefect(cache)
with prefect_server(cache):
    from prefect.client.orchestration import get_client
    with get_client(sync_client=True) as client:
        client.read_flows()
    import subprocess
    print(*(f"{path.lstat().st_mode & 0o777:o} {path.name}" for path in cache.rglob("*")), sep=chr(10))
"""


def open_to_others(folder: Path) -> list[str]:
    """Files that others can read, and whose folders they can pass, below a folder."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file()
        and path.stat().st_mode & 0o077
        and all(above.stat().st_mode & 0o077 for above in path.parents if above.is_relative_to(folder))
    ]


@pytest.mark.parametrize("umask", ["000", "022"])
def test_a_servers_files_are_for_its_user_alone(umask: str, tmp_path: Path) -> None:
    left_out = ("PREFECT_API", "LADM_PREFECT")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    made = subprocess.run(
        [sys.executable, "-c", A_RUN, str(tmp_path / "cache"), umask],
        env=environment, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert "prefect.db-wal" in made.stdout
    assert (tmp_path / "cache").stat().st_mode & 0o077  # models are for everybody who shares a cache
    assert open_to_others(tmp_path / "cache") == []


def test_files_of_earlier_versions_are_closed(tmp_path: Path) -> None:
    for name in ("prefect.db", "prefect-serve.db", "prefect-serve.db-wal", "prefect-server.log"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name).chmod(0o644)
    tmp_path.chmod(0o755)
    assert private_folder(tmp_path) == tmp_path
    assert open_to_others(tmp_path) == []


def test_a_cache_that_anybody_can_write_has_a_folder_for_each_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    ours = private_folder(tmp_path)
    assert ours == tmp_path / f"user-{os.geteuid()}" == private_folder(tmp_path)
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    assert stat.S_IMODE(private_file(ours / "x").stat().st_mode) == 0o600


@pytest.mark.parametrize("planted", ["file", "link"])
def test_a_folder_that_another_has_put_there_is_refused(planted: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    place = cache / f"user-{os.geteuid()}"
    place.touch() if planted == "file" else place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"^LADM_CACHE: .*user-\d+' cannot be kept from others"):
        private_folder(cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_cache_of_another_user_has_one_too(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    assert private_folder(tmp_path) == tmp_path / "user-0"
    os.chown(tmp_path / "user-0", 65534, 65534)
    with pytest.raises(ConfigError, match=r"^LADM_CACHE: .* cannot be kept from others \(it is another user's"):
        private_folder(tmp_path)


@pytest.mark.parametrize("home", ["/proc", "{file}", "{unreadable}"])
def test_prefect_has_a_home_where_the_users_cannot_be_used(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "unreadable" / ".prefect").mkdir(parents=True)
    seen = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "unreadable" not in str(path) and seen(path, mode))
    monkeypatch.setenv("PREFECT_HOME", "")
    monkeypatch.setenv("HOME", home.format(file=tmp_path / "file", unreadable=tmp_path / "unreadable"))
    give_prefect_a_home(tmp_path)
    assert os.environ["PREFECT_HOME"] == str(private_folder(tmp_path) / "prefect-home")


def test_prefect_keeps_the_home_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    give_prefect_a_home(tmp_path / "cache")
    assert os.environ["PREFECT_HOME"] == ""
    assert (tmp_path / ".prefect").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_settings_of_a_home_that_cannot_be_looked_into_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".prefect").mkdir(mode=0o700)
    (tmp_path / ".prefect" / "profiles.toml").touch()
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert are_given()
    os.seteuid(65534)
    try:
        assert not are_given()
    finally:
        os.seteuid(0)
