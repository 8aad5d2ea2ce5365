"""The workflow, the pre-commit hooks and the Makefile run what .ci/run runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def check_workflow(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_workflow_is_one_and_runs_what_ci_runs(tmp_path: Path) -> None:
    found = check_workflow(WORKFLOW)
    assert found.returncode == 0, found.stdout + found.stderr
    broken = tmp_path / "ci.yml"
    broken.write_text(WORKFLOW.read_text(encoding="utf-8").replace("runs-on", "runs-at"))
    assert check_workflow(broken).returncode != 0
    (job,) = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_pre_commit_has_the_quick_checks_of_ci() -> None:
    config: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    assert all(hook["language"] == "system" for hook in hooks.values())
    assert set(hooks) == {"ruff-check", "ruff-format", "mypy"}
    for command in ("ruff check", "ruff format", "mypy"):
        assert f"&& {command}" in CI
        assert any(hook["entry"].startswith(command) for hook in hooks.values())


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", text, re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == targets
    (phony,) = re.findall(r"^\.PHONY: (.*)", text, re.MULTILINE)
    assert phony.split() == targets
    for target in targets:  # whether make understands it
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)
    assert "ruff check . && ruff format --check . && mypy" in CI
    assert "pytest -n logical --dist loadfile" in CI
