"""What mkdocs adds to the pages of docs/: the reference, made from the code, and three pages that lie outside docs/.

`mkdocs.yml` names this file; mkdocs calls `on_files` before it builds.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "src")]  # this checkout's code, whatever is installed

import reference  # noqa: E402

OUTSIDE = {
    "develop.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "measured.md": "benchmarks/RESULTS.md",
}
"""Page of the site → the file of the repository that it shows."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, text in generated().items():
        files.append(File.generated(config, name, content=text))
    return files


def generated() -> dict[str, str]:
    """Page → its Markdown."""
    outside = {page: _as_seen_from_docs((ROOT / path).read_text(encoding="utf-8")) for page, path in OUTSIDE.items()}
    return {**outside, **reference.pages()}


def _as_seen_from_docs(text: str) -> str:
    """Links to `docs/…` lead to the page itself, and one to the README to the start."""
    return re.sub(r"\]\((?:\.\./)?README\.md", "](index.md", re.sub(r"\]\((?:\.\./)?docs/", "](", text))
