"""The reference, made from the code: the configuration, the SQL views, the command line and the Python API."""

from __future__ import annotations

import argparse
import json
import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from python_reference import python_page

from ladm.flows.ask.meanings import VIEWS
from ladm.flows.cli import _parser
from ladm.flows.config import RunConfig


def pages() -> dict[str, str]:
    """Page → its Markdown."""
    return {
        "reference/configuration.md": configuration_page(),
        "reference/sql.md": sql_page(),
        "reference/cli.md": cli_page(),
        "reference/python.md": python_page(),
    }


# -- configuration -------------------------------------------------------------------------------------------


class Key(NamedTuple):
    """One key of the configuration."""

    path: str
    """As `--set` takes it; `[]` stands for an entry's number, `[parquet]` for an entry of that format."""
    type: str
    default: str
    description: str


def configuration_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Key]:
    """Every key that a configuration may hold, a section before what is in it."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        inner = list(_models(field.annotation))
        many = _is_list(field.annotation)
        yield Key(path, _type(field.annotation), _default(field, inner), " ".join((field.description or "").split()))
        for one in inner:
            marked = f"{path}[{_tag(one)}]" if many else path
            yield from configuration_keys(one, f"{marked}.")


def configuration_page() -> str:
    """The page on the configuration: a table a section."""
    lines = [
        "# Configuration",
        "",
        "Every key that `config.yaml` may hold. `--set a.b=c` sets the same keys on the command line; entries of lists "
        "are counted from 0, as in `--set sources.0.uri=data/*.parquet`. Unknown keys are refused. Numbers may be "
        "written as `1_000_000` or `1e6`, and numbers of tokens as `1M` or `1B`. In `store`, `uri`, `model` and "
        "`calibration`, `$NAME` and `~` mean what they mean in a shell.",
        "",
    ]
    tables: dict[str, list[Key]] = {}
    sections = {}
    for key in configuration_keys():
        section, _, name = key.path.rpartition(".")
        tables.setdefault(section, []).append(key._replace(path=name))
        sections[key.path] = key.description
    for section, keys in tables.items():
        if section:
            lines += [f"## `{section}` {{ #{_anchor(section)} }}", ""]
            lines += [sections[section.rpartition("[")[0] if section.endswith("]") else section], ""]
        lines += ["| key | type | default | |", "|---|---|---|---|"]
        for key in keys:
            path = f"{section}.{key.path}" if section else key.path
            below = next((one for one in tables if one == path or one.startswith(f"{path}[")), None)
            name = f"[`{key.path}`](#{_anchor(below)})" if below else f"`{key.path}`"
            lines.append(f"| {name} | {_cell(key.type)} | {_cell(key.default)} | {_cell(key.description)} |")
        lines.append("")
    return "\n".join(lines)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation leads to."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in typing.get_args(annotation):
        yield from _models(one)


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is list or any(map(_is_list, typing.get_args(annotation)))


def _tag(model: type[BaseModel]) -> str:
    """What tells an entry of a list from entries of other forms: its `format`, if it has one fixed."""
    field = model.model_fields.get("format")
    choices = typing.get_args(field.annotation) if field else ()
    return str(choices[0]) if len(choices) == 1 else ""


def _type(annotation: Any) -> str:
    """A type in a reader's words."""
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{one}`" for one in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [_type(one) for one in typing.get_args(annotation) if one is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    if typing.get_origin(annotation) in (list, tuple):
        inner = [_type(one) for one in typing.get_args(annotation) if one is not Ellipsis]
        return f"list of {' or '.join(dict.fromkeys(inner))}".replace("section", "sections")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    words = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true, false",
        type(None): "null",
        Any: "anything",
    }
    return words.get(annotation, "mapping" if typing.get_origin(annotation) is dict else str(annotation))


def _default(field: FieldInfo, inner: list[type[BaseModel]]) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or (isinstance(value, list) and value and isinstance(value[0], BaseModel)):
        return ", ".join(f"`{one.format}`" for one in value) if isinstance(value, list) else "see there"
    if value is None:
        return "none"
    return f"`{json.dumps(value.value if isinstance(value, Enum) else value)}`".replace('"', "")


# -- SQL -----------------------------------------------------------------------------------------------------


def sql_page() -> str:
    """The page on the views of `ladm sql`."""
    lines = [
        "# SQL views",
        "",
        "What `ladm sql` shows of one run: the newest completed one, or that of `--run ID`. Queries are DuckDB's SQL, "
        "read only. [Ask the results](../guides/ask.md) has queries to start from. In the shell, `.columns VIEW` tells "
        "the same as this page.",
        "",
    ]
    for name, view in VIEWS.items():
        lines += [f"## {name}", "", view.shows, "", "| column | means |", "|---|---|"]
        lines += [f"| `{column}` | {_cell(text)} |" for column, text in view.columns.items()]
        lines.append("")
    return "\n".join(lines)


# -- command line --------------------------------------------------------------------------------------------


class Option(NamedTuple):
    """An option or argument of a command."""

    command: str
    name: str
    description: str


def commands() -> dict[str, argparse.ArgumentParser]:
    """Command → its parser, in the order of `ladm --help`."""

    def below(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        actions = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
        if not actions:
            yield name, parser
        for action in actions:
            for word, inner in action.choices.items():
                yield from below(inner, f"{name} {word}")

    return dict(below(_parser(), "ladm"))


def options() -> list[Option]:
    """Every option of every command, with what it says of itself."""
    found = []
    for name, parser in commands().items():
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction | argparse._VersionAction):
                continue
            value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
            value = "|".join(map(str, action.choices)) if action.choices else value
            shown = " ".join([*action.option_strings[:1], str(value)]).strip()
            found.append(Option(name, shown, (action.help or "").replace("%%", "%")))
    return found


def cli_page() -> str:
    """The page on the command line."""
    lines = [
        "# Command line",
        "",
        "Exit codes: 0 done; 1 a shard failed, or more than the allowed share was quarantined; 2 refused before any "
        "work, in one line; 130 interrupted. The model cache is `~/.cache/ladm`, or `$LADM_CACHE`; the embedded model "
        "takes 0.5 GB there.",
        "",
    ]
    for name, parser in commands().items():
        lines += [f"## {name}", "", f"{_sentence(parser.description or '')}", ""]
        here = [one for one in options() if one.command == name]
        lines += ["| option | |", "|---|---|"] if here else []
        lines += [f"| `{one.name.replace('|', ' / ')}` | {_cell(one.description)} |" for one in here]
        if parser.epilog:
            lines += ["", "```text", parser.epilog.strip("\n"), "```"]
        lines.append("")
    return "\n".join(lines)


# -- Markdown ------------------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _anchor(path: str) -> str:
    return path.replace("[", "-").replace("]", "").replace(".", "-").strip("-")
