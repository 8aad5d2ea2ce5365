"""What is installed: ladm and nothing else, with everything that it imports declared and pinned."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = ("flows", "tasks", "sql")
BROUGHT = {"triton"}
"""What another package brings where it can be used at all: Triton comes with PyTorch, on Linux alone."""
NEVER_PINNED = {"pip"}
"""What installs the rest is not for the rest to choose."""


def normal(name: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    """The distributions that requirements name."""
    found = [re.match(r"[\w.-]+", one) for one in requirements]
    return {normal(one[0]) for one in found if one}


def imported() -> dict[str, Path]:
    """Third-party module → a file that imports it, at its top or anywhere else."""
    found: dict[str, Path] = {}
    for path in [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"ladm"} - BROUGHT
            found |= dict.fromkeys(tops, path)
    return found


def test_what_is_imported_is_declared() -> None:
    of_users = {
        name: more for name, more in PROJECT["optional-dependencies"].items() if name not in ("test", "readers")
    }
    extras = [one for more in of_users.values() for one in more]
    declared = names_of([*PROJECT["dependencies"], *extras])
    distributions = packages_distributions()
    missing = {
        module: str(path)
        for module, path in imported().items()
        if not declared & {normal(one) for one in distributions.get(module, [module])}
    }
    assert missing == {}


def test_what_is_declared_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(line.partition("==")[0]) for line in lines if "==" in line and not line.startswith("#")}
    declared = [*PROJECT["dependencies"], *(one for more in PROJECT["optional-dependencies"].values() for one in more)]
    assert names_of(declared) - NEVER_PINNED <= pinned


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip wheel --no-deps .` makes, from a copy: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*FOLDERS, "src"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", folder, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_ladm_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"ladm"}
    kinds = (".py", ".sql", ".json", ".yaml", ".zst", ".md", ".jinja", ".css", ".js")
    wanted = {
        f"ladm/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.name.endswith(kinds)
    }
    assert wanted <= names
    assert {"ladm/__init__.py", "ladm/py.typed"} <= names


def test_a_project_with_flows_and_tasks_of_its_own_gets_ours(wheel: Path, tmp_path: Path) -> None:
    """As a worker starts a deployed flow: in the project's folder, which stands first on the path."""
    site, project = tmp_path / "site", tmp_path / "project"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in FOLDERS:
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("raise ImportError('this is the project\\'s own')\n")
    (project / "two.jsonl").write_text('{"text": "one"}\n{"text": "another"}\n')
    program = (
        "import sys; sys.path.insert(0, '')\n"
        "from ladm.flows.cli import main\n"
        "code = main(['run', '--json', '--until', 'ingest', '--store', 'store', '--set', 'sources=two.jsonl'])\n"
        "print(*(sys.modules[one].__file__ for one in ('ladm', 'ladm.flows.dag.curate', 'ladm.tasks.stages.ingest')))\n"
        "sys.exit(code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    record, files = done.stdout.splitlines()
    assert json.loads(record)["stages"]["ingest"]["kept"] == 2
    assert all(Path(file).is_relative_to(site) for file in files.split())
