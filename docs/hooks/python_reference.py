"""The reference of the Python API: every name of `ladm`, with its signature and what its docstring says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import ladm

SECTIONS = ("Args", "Returns", "Raises", "Attributes", "Yields")


def python_page() -> str:
    """The page: functions first, then classes with what they have."""
    lines = [
        "# Python",
        "",
        "Every public name of `ladm`. [Python](../guides/python.md) shows how they go together.",
        "",
    ]
    for name, value in public_names().items():
        kind = "class " if inspect.isclass(value) else ""
        lines += [f"## ladm.{name}", "", "```text", f"{kind}ladm.{name}{_signature(value)}", "```", ""]
        lines += [*_text(value), ""]
        for member, of in members(value):
            lines += [f"### {name}.{member}", "", "```text", f"{member}{_signature(of)}", "```", "", *_text(of), ""]
    return "\n".join(lines)


def public_names() -> dict[str, Any]:
    """Name → what `import ladm` gives for it: functions before classes, the version left out."""
    found = {name: getattr(ladm, name) for name in ladm.__all__ if name != "__version__"}
    return dict(sorted(found.items(), key=lambda item: (inspect.isclass(item[1]), item[0])))


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class of ours that is no configuration and no error."""
    if not inspect.isclass(value) or issubclass(value, Exception) or hasattr(value, "model_fields"):
        return
    for name in dir(value):
        member = inspect.getattr_static(value, name)
        if not name.startswith("_") and (callable(member) or isinstance(member, property | classmethod)):
            yield name, member


def _signature(value: Any) -> str:
    if isinstance(value, property) or (inspect.isclass(value) and hasattr(value, "model_fields")):
        return ""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    shown = [one for name, one in found.parameters.items() if name != "self"]
    text = str(found.replace(parameters=shown))
    if inspect.isclass(value):
        text = text.removesuffix(" -> None")
    return re.sub(r"(: |-> )'([^']+)'", r"\1\2", text)  # annotations that are written as text


def _text(value: Any) -> Iterator[str]:
    """A docstring as Markdown: its sections as lists."""
    inside = False
    for line in (inspect.getdoc(value) or "").splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            inside = True
            yield f"**{line}**"
            yield ""
        elif inside and (found := re.match(r"    (\*{0,2}\w+): (.*)", line)):
            yield f"- `{found[1]}`: {found[2]}"
        elif inside and line.startswith("    "):
            yield f"  {line.strip()}"
        else:
            inside = inside and not line.strip()
            yield line.replace("<", "&lt;")
