"""YAML as a configuration may use it: each key once, and aliases that stay small.

PyYAML itself keeps the last of two equal keys without a word. Its aliases are references, so ten lines of them can
stand for a billion entries: they cost nothing to read and everything to whoever goes through them.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

NOT_DECIMAL = re.compile(r"[-+]?(?:0[0-9_]+|[0-9][0-9_]*(?::[0-9]+)+)")
"""Numbers to the base of 8 and 60, which look like others."""
HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
"""What YAML's escapes can write and no file, and no library, takes."""
LEAST_ROOM = 100_000
ROOM_FOR_EACH = 10
"""What aliases stand for may, written out, be so many times as long as the text."""


def read_yaml(text: str) -> Any:
    """The value that a YAML text stands for; no two places of it share a list or a mapping.

    Raises:
        ValueError: In one line, what is wrong with the text.
    """
    try:
        return _apart(yaml.load(text, _Loader))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


class _Loader(yaml.SafeLoader):
    """SafeLoader that looks at the tree of nodes before it makes values of it."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            room = max(LEAST_ROOM, ROOM_FOR_EACH * len(self.buffer))
            _written_out(node, room, {}, set())
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number as people write one: YAML takes 010 for 8, and 1:30 for 90."""
        written = str(node.value)
        if NOT_DECIMAL.fullmatch(written):
            plain = written.replace("_", "").lstrip("+-0") or "0"
            fix = f"write {plain}" if ":" not in written else "write it in quotes, or as the number that is meant"
            raise ValueError(f"line {node.start_mark.line + 1}: YAML takes {written!r} for another number; {fix}")
        return int(super().construct_yaml_int(node))

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (KeyError, AttributeError, TypeError, OverflowError):  # PyYAML looks at no value that has a tag
            kind = node.tag.rpartition(":")[2]
            raise ValueError(f"line {node.start_mark.line + 1}: {str(node.value)[:60]!r} is no {kind}") from None

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if isinstance(node, yaml.ScalarNode) and HALF_A_CHARACTER.search(node.value):
            place = f"line {node.start_mark.line + 1}: {node.value[:60]!a}"
            raise ValueError(f"{place} holds half a character (U+D800 to U+DFFF); leave it out")
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        _check_keys(self, node)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _written_out(node: yaml.Node, room: int, known: dict[int, int], above: set[int]) -> int:
    """The length of a node, with every alias written out; each node is gone through once."""
    if isinstance(node, yaml.ScalarNode):
        return 2 + len(node.value)
    if id(node) in above:
        raise ValueError(f"line {node.start_mark.line + 1}: an alias holds itself; write out what is meant")
    if id(node) not in known:
        above.add(id(node))
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        inner = [one for pair in pairs for one in pair]
        size = 2 + sum(_written_out(one, room, known, above) for one in inner)
        if size > room:
            raise ValueError(
                f"line {node.start_mark.line + 1}: what its aliases (*name) stand for is more than {room:,} characters "
                "long; write out what is meant"
            )
        above.discard(id(node))
        known[id(node)] = size
    return known[id(node)]


def _check_keys(loader: _Loader, node: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            places = f"lines {lines[name]} and {line}" if lines[name] != line else f"line {line}"
            raise ValueError(f"{places}: the key {key.value!r} stands there twice; leave one")
        lines[name] = line


def _apart(value: Any) -> Any:
    """A copy in which what aliases shared is no longer shared, so that `--set` changes one place only."""
    if isinstance(value, dict):
        return {key: _apart(one) for key, one in value.items()}
    return [_apart(one) for one in value] if isinstance(value, list) else value
