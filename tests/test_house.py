"""The house: no import goes in a circle, and modules and functions keep to their size."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("flows", "tasks", "sql")
MOST_LINES = 300
MOST_FUNCTION_LINES = 60


def modules() -> dict[str, Path]:
    """Dotted name → file."""
    found = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(("ladm", *parts)).removesuffix(".__init__")
            found[name] = path
    return found


def imports() -> dict[str, set[str]]:
    """Module → the modules that it imports, anywhere in it."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        wanted = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                wanted |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        # `from package import module` is of the module; a package's own file holds nothing but words
        found[name] = {one for one in wanted if one in known and known[one].name != "__init__.py"} - {name}
    return found


def on_a_circle(graph: dict[str, set[str]]) -> set[str]:
    """The modules that import themselves, by way of others."""

    def reached(name: str) -> set[str]:
        found: set[str] = set()
        ahead = set(graph[name])
        while ahead:
            found |= ahead
            ahead = {other for one in ahead for other in graph[one]} - found
        return found

    return {name for name in graph if name in reached(name)}


def test_no_import_goes_in_a_circle() -> None:
    assert on_a_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {"b", "c"}
    assert on_a_circle(imports()) == set()


def names_of(module: ast.Module) -> set[str]:
    """The names that a module has at its top, in whatever branch."""
    found: set[str] = set()
    ahead: list[ast.AST] = [module]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        ahead += ast.iter_child_nodes(node)
    return found


IMPORTING = sorted(
    path.relative_to(ROOT) for folder in ("tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", IMPORTING, ids=str)
def test_what_tests_and_benchmarks_import_is_there(path: Path) -> None:
    """Slow tests and benchmarks are not imported by every run of the suite, and a name may move away from them."""
    known = modules()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ladm."):
            assert node.module in known
            names = names_of(ast.parse(known[node.module].read_text(encoding="utf-8")))
            for alias in node.names:
                assert alias.name in names or f"{node.module}.{alias.name}" in known, f"line {node.lineno}"


def test_tasks_know_nothing_of_flows() -> None:
    wrong = [
        (name, other)
        for name, others in imports().items()
        for other in others
        if name.startswith("ladm.tasks") and other.startswith("ladm.flows")
    ]
    assert wrong == []


def test_no_module_is_called_like_one_of_python() -> None:
    """But for a stage, which goes by the name that users know it by."""
    alike = {name for name in modules() if name.rpartition(".")[2] in sys.stdlib_module_names}
    assert alike == {"ladm.tasks.stages.tokenize"}


def too_long(path: Path) -> list[str]:
    """What of a module is too long."""
    text = path.read_text(encoding="utf-8")
    lines = {"the module": len(text.splitlines()) - MOST_LINES}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines[node.name] = (node.end_lineno or 0) - node.lineno + 1 - MOST_FUNCTION_LINES
    return [f"{name}: {over + 1} lines too many" for name, over in lines.items() if over >= 0]


@pytest.mark.parametrize("name", sorted(modules()))
def test_modules_and_functions_keep_to_their_size(name: str) -> None:
    assert too_long(modules()[name]) == []


TOLD = [*(ROOT / "sql").glob("*.sql"), *modules().values(), *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("path", sorted(one.relative_to(ROOT) for one in TOLD), ids=str)
def test_modules_go_by_their_names(path: Path) -> None:
    """A module that a text names (`guard.py`, `tests/dag/test_memory.py`) is there."""
    folders = [ROOT / folder for folder in (*FOLDERS, "tests", "benchmarks")]
    there = [one.as_posix() for folder in folders for one in folder.rglob("*.py")]
    for named in re.findall(r"(?<![\w/.])[\w/]+\.py\b", (ROOT / path).read_text(encoding="utf-8")):
        assert any(one.endswith(f"/{named}") for one in there), named
