"""The documentation site: it builds without a warning, and loads nothing from the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. `--strict` makes every warning an error: a link to nowhere, a page that is not there."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", folder],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_it_builds_strictly(site: Path) -> None:
    assert (site / "index.html").is_file()
    assert (site / "reference" / "configuration.html").is_file()


def test_it_loads_nothing_from_the_network(site: Path) -> None:
    """Neither fonts nor scripts nor pictures: links that a reader may follow are another matter."""
    loading = re.compile(
        r"<(?:script|img|iframe)[^>]+src=\"?(https?:)?//|<link[^>]+stylesheet[^>]+href=\"?(https?:)?//"
    )
    assert [str(path) for path in site.rglob("*.html") if loading.search(path.read_text(encoding="utf-8"))] == []


def test_troubleshooting_tells_of_messages_that_there_are() -> None:
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    messages = re.findall(r"^`(.+)`\n:   ", page, re.MULTILINE)
    code = "".join(
        path.read_text(encoding="utf-8") for name in ("flows", "tasks") for path in (ROOT / name).rglob("*.py")
    )
    assert len(messages) >= 8
    for message in messages:
        for part in filter(None, map(str.strip, message.split("…"))):
            assert part in code, message


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/RESULTS.md"])
def test_links_between_files_lead_somewhere(name: str) -> None:
    """The site's own pages are checked by mkdocs; these are also read as they lie in the repository."""
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [one for one in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) if not one.startswith("http")]
    assert [one for one in links if not ((ROOT / name).parent / one).exists()] == []
    assert links or name != "README.md"
