"""The reference, made from the code: what it says is what the code takes."""

from __future__ import annotations


def pages() -> dict[str, str]:
    """Page → its Markdown."""
    names = {"configuration": "Configuration", "sql": "SQL views", "cli": "Command line", "python": "Python"}
    return {f"reference/{name}.md": f"# {title}\n\nMade from the code.\n" for name, title in names.items()}
