"""What other packages add by entry points: the example of docs/ installed and run, and packages that are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Corpus, run_arguments

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "ladm-example"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed into a folder of its own from a copy of its source."""
    folder = tmp_path_factory.mktemp("example")
    source, target = folder / "source", folder / "site"
    subprocess.run(["cp", "-r", EXAMPLE, source], check=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def made_up(folder: Path, name: str, version: str, points: dict[str, dict[str, str]], module: str) -> Path:
    """A package as pip leaves it, with one module."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        line for group, named in points.items() for line in (f"[{group}]", *(f"{a} = {b}" for a, b in named.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.py").write_text(module)
    return folder


def ladm(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own that finds the packages of a folder."""
    path = os.pathsep.join([str(ROOT / "src"), str(site)])
    command = [sys.executable, "-m", "ladm.flows.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


ASKED = ["scorer.beside=[line_variety, gzip]", "select.rank_by=line_variety", "filters=[few_digits]"]
EXPORT = "export=[{format: markdown, heading: '##'}]"


def test_a_package_adds_a_scorer_a_filter_and_an_exporter(tmp_path: Path, corpus: Corpus, example: Path) -> None:
    digits = {"text": "1234 5678 " * 200, "meta": {"pile_set_name": "Poems"}}
    (corpus.folder / "numbers.jsonl").write_text(json.dumps(digits) + "\n")
    store = tmp_path / "store"
    arguments = run_arguments(corpus, store, *ASKED, EXPORT)
    done = ladm(example, *arguments)
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    assert record["stages"]["filter"]["dropped"] == {"few_digits: too many digits": 1}
    query = "select distinct line_variety from scores"
    answer = ladm(example, "sql", query, "--store", str(store), "--format", "json")
    assert [row["line_variety"] for row in json.loads(answer.stdout)] == [1.0]
    (exported,) = (store / "runs" / record["run_id"] / "export" / "markdown").glob("*.md")
    assert exported.read_text().count("## ") == record["stages"]["rank"]["selected_documents"] > 0
    card = (store / "runs" / record["run_id"] / "export" / "README.md").read_text()
    assert "any editor" in card
    assert "data_files" not in card, "only its own reader knows how it is read"
    again = json.loads(ladm(example, *arguments).stdout)
    assert all(stage["run"] == 0 for stage in again["stages"].values())
    # another version of the package is another key: all that is its own is done again, and no window is scored again
    newer = tmp_path / "newer"
    subprocess.run(["cp", "-r", example, newer], check=True)
    metadata = next(newer.glob("ladm_example-*.dist-info")) / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0.0", "Version: 1.0.1"))
    other = json.loads(ladm(newer, *arguments).stdout)
    assert other["windows_scored"] == 0
    assert {name for name, stage in other["stages"].items() if stage["run"]} >= {"filter", "measure", "export"}
    # without the package, what it adds is refused by its name
    missing = ladm(tmp_path / "nowhere", *arguments)
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1


BROKEN = """
raise_it = None
def filter_without_text():
    return 3
class Settings: pass
CONFIG = Settings
def needs(config, length): pass
def score(config, evidence): pass
"""


@pytest.mark.parametrize(
    ("group", "name", "place", "setting", "said"),
    [
        ("ladm.scorers", "broken", "no_such_module", "scorer.beside=[broken]", "cannot be imported (ModuleNotFound"),
        ("ladm.scorers", "broken", "made_up", "scorer.beside=[broken]", "not derived from ladm.tasks.settings"),
        ("ladm.scorers", "broken", "made_up:needs", "scorer.beside=[broken]", "it has no CONFIG"),
        ("ladm.scorers", "gzip", "made_up", "scorer.beside=[gzip]", ""),
        ("ladm.filters", "broken", "made_up:filter_without_text", "filters=[broken]", "makes nothing that takes"),
        ("ladm.filters", "broken", "made_up:nothing", "filters=[broken]", "made_up has no 'nothing'"),
        ("ladm.filters", "broken", "made_up:raise_it", "filters=[broken]", "it is no function"),
        ("ladm.exporters", "broken", "made_up:Settings", "export=[broken]", "not derived from ladm.tasks.exporters"),
        ("ladm.exporters", "broken", "no_such_module:X", "export=[broken]", "cannot be imported (ModuleNotFound"),
    ],
)
def test_a_broken_package_harms_only_who_asks_for_it(
    tmp_path: Path, corpus: Corpus, group: str, name: str, place: str, setting: str, said: str
) -> None:
    site = made_up(tmp_path / "site", "made_up", "0.3", {group: {name: place}}, BROKEN)
    program = (
        "import sys; from ladm.flows.config import load_config; from ladm.flows.dag.preflight import check_filters\n"
        "settings = sys.argv[2:]\n"
        "load_config(None, settings, 'store')\n"  # does no harm
        "try:\n    check_filters(load_config(None, [*settings, sys.argv[1]], 'store'))\n"
        "except ValueError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(site)])}
    done = subprocess.run(
        [sys.executable, "-c", program, setting, *corpus.settings],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert done.stdout.count("\n") == bool(said)
    if said and "has no 'nothing'" not in said:
        assert "made_up 0.3" in done.stdout
