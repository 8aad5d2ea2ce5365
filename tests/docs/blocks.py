"""The fenced blocks of the README and of docs/: where they are, and whether they are marked as not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"bash", "sql", "python", "yaml"}
SHOWN = {"text", "", "toml"}
"""Blocks that show something, and ask for nothing."""
_BLOCK = re.compile(r"^( *)```([\w.-]*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- not run: (.+?) -->\s*\Z")


class Block(NamedTuple):
    """One fenced block."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None
    """Why it is not run: what the comment `<!-- not run: … -->` on the line before it says."""

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    """All blocks, page by page."""
    return [block for page in PAGES for block in _blocks_of(page)]


def _blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        indent, language, content = found.groups()
        before = text[: found.start()]
        mark = _MARK.search(before)
        content = re.sub(rf"^{indent}", "", content, flags=re.MULTILINE)
        yield Block(
            str(page.relative_to(ROOT)), before.count("\n") + 1, language, content, mark[1].strip() if mark else None
        )


def commands(block: Block) -> list[list[str]]:
    """The commands of a bash block, comments left out."""
    found: list[list[str]] = [[]]
    for line in _logical_lines(block.text):
        for word in shlex.split(line, comments=True):
            if word in ("&&", ";"):
                found.append([])
            else:
                found[-1].append(word)
        found.append([])
    return [one for one in found if one]


def _logical_lines(text: str) -> Iterator[str]:
    """Lines, those joined that a quote or a backslash at the end holds together."""
    held = ""
    for line in text.splitlines():
        held = f"{held}\n{line}" if held else line
        if held.endswith("\\"):
            held = held[:-1]
            continue
        try:
            shlex.split(held, comments=True)
        except ValueError:  # no closing quotation
            continue
        yield held
        held = ""
