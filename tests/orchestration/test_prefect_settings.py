"""Settings of Prefect that it cannot read: one line that names the variable, or the file and the key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "import sys; from ladm.flows.cli import main; raise SystemExit(main())"
CHECK = """
from ladm.flows.orchestration.prefect_settings import check_prefect_settings
try:
    check_prefect_settings()
except ValueError as error:
    raise SystemExit(str(error))
print("fine")
"""
CURATE = """
import ladm
try:
    ladm.curate(until="tokenize")
except ladm.UserError as error:
    print(error)
"""


def started(folder: Path, code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a Python of its own, which has not loaded Prefect, says in a folder under these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**kept, "PREFECT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "files", "said"),
    [
        ({"PREFECT_LOGGING_LEVEL": "NONSENSE"}, {}, "PREFECT_LOGGING_LEVEL: input should be 'DEBUG', "),
        ({"prefect_logging_colors": "mauve"}, {}, "prefect_logging_colors: input should be a valid boolean, "),
        ({"PREFECT_CLIENT_CUSTOM_HEADERS": "nojson"}, {}, "PREFECT_CLIENT_CUSTOM_HEADERS: Prefect reads JSON there"),
        ({}, {"prefect.toml": '[api]\nrequest_timeout = "soon"\n'}, "prefect.toml: api.request_timeout: "),
        ({}, {"prefect.toml": "[api\n"}, "prefect.toml: Prefect reads its settings there, and it is not TOML"),
        ({}, {"pyproject.toml": '[tool.prefect.api]\nrequest_timeout = "x"\n'}, "pyproject.toml: tool.prefect.api."),
        ({}, {".env": "PREFECT_API_ENABLE_HTTP2=maybe\n"}, ".env: PREFECT_API_ENABLE_HTTP2: input should be a valid"),
        (
            {},
            {"home/profiles.toml": 'active = "a"\n[profiles.a]\nPREFECT_TASKS_DEFAULT_RETRIES = "many"\n'},
            "home/profiles.toml: profiles.a.PREFECT_TASKS_DEFAULT_RETRIES: input should be a valid integer",
        ),
        ({}, {"home/profiles.toml": "active = =\n"}, "home/profiles.toml: Prefect reads its settings there, and it is"),
        ({}, {"home/profiles.toml": "profiles = 3\n"}, "home/profiles.toml"),
    ],
)
def test_a_setting_that_prefect_cannot_read_is_named(
    tmp_path: Path, variables: dict[str, str], files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    ended = started(tmp_path, CHECK, **variables)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert said in line


def test_settings_that_are_right_are_no_matter(tmp_path: Path) -> None:
    (tmp_path / "prefect.toml").write_text("[api]\nrequest_timeout = 50.0\n")
    ended = started(tmp_path, CHECK, PREFECT_LOGGING_LEVEL="DEBUG")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "fine\n", "")


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    ended = started(tmp_path, MAIN, "run", PREFECT_CLIENT_CUSTOM_HEADERS='{"Authorization": ["hush"]}')
    assert ended.returncode == 2
    assert ended.stderr.startswith("ladm: PREFECT_CLIENT_CUSTOM_HEADERS")
    assert "hush" not in ended.stderr


@pytest.mark.parametrize("command", [["run"], ["serve", "--cron", "@daily"], ["deploy"], ["evaluate"]])
def test_a_command_refuses_before_any_work(tmp_path: Path, command: list[str]) -> None:
    ended = started(tmp_path, MAIN, *command, PREFECT_API_REQUEST_TIMEOUT="soon")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("ladm: PREFECT_API_REQUEST_TIMEOUT: input should be a valid number")
    assert not ended.stdout
    assert not (tmp_path / "ladm-store").exists()


def test_python_raises_a_user_error(tmp_path: Path) -> None:
    ended = started(tmp_path, CURATE, PREFECT_API_REQUEST_TIMEOUT="soon")
    assert ended.stdout.startswith("PREFECT_API_REQUEST_TIMEOUT: ")
    assert not ended.stderr


def test_what_is_no_address_is_named(tmp_path: Path) -> None:
    """Prefect's own complaint names no setting."""
    ended = started(tmp_path, MAIN, "run", "--store", str(tmp_path / "store"), PREFECT_API_URL="http://[::1/api")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "ladm: PREFECT_API_URL: Invalid IPv6 URL; correct it, or leave this setting out\n"
    assert not (tmp_path / "store").exists()
