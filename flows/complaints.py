"""What is wrong with a configuration, in one line: the field, the complaint, and the fix."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ladm.tasks.printable import printable

MOST_COMPLAINTS = 50
IN_YAMLS_WORDS = {
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "dict_attributes_type"), "a mapping of keys"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list (each entry after a dash, or [a, b])"),
    "string_type": "a text; write it in quotes",
}
"""What pydantic calls by the names of Python's types."""


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """All of pydantic's complaints as one line: field, what is wrong, and the fix."""
    complaints = error.errors(include_url=False)
    found = list(dict.fromkeys(_explain_one(complaint, model) for complaint in complaints[:MOST_COMPLAINTS]))
    more = len(complaints) - MOST_COMPLAINTS
    return "; ".join([*found, f"and {more} more"] if more > 0 else found)


def _explain_one(complaint: Any, model: type[BaseModel]) -> str:
    # pydantic names the models it tried, in capitals, among the fields; an unknown key is the last, and the user's own
    own = complaint["loc"][-1:] if complaint["type"] == "extra_forbidden" else ()
    tried = complaint["loc"][: len(complaint["loc"]) - len(own)]
    parts = [*(part for part in tried if not (isinstance(part, str) and part[:1].isupper())), *own]
    field = printable(".".join(str(part) for part in parts)) or "configuration"
    message = str(complaint["msg"]).removeprefix("Value error, ")
    if wanted := IN_YAMLS_WORDS.get(complaint["type"]):
        message = f"should be {wanted}"
    if complaint["type"] == "extra_forbidden":
        known = _known_fields(model, complaint["loc"][:-1])
        close = difflib.get_close_matches(str(parts[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        return f"{field}: unknown key; {hint}"
    if complaint["type"] == "missing":
        return f"{field}: missing; give it a value"
    of_section = not parts and message.partition(":")[0].partition(".")[0] in model.model_fields
    if of_section or message.startswith(f"{field}:"):
        return message  # it names the field itself
    given = "" if complaint["type"] == "value_error" else f", not {short(complaint['input'])}"
    return f"{field}: {message[:1].lower()}{message[1:]}{given}"


def short(value: object) -> str:
    """A value as Python writes it, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_fields(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    within = [model]
    for part in path:
        if isinstance(part, str) and part in within[0].model_fields:
            within = _models_within(within[0].model_fields[part].annotation)
            if not within:
                return []
        else:  # an index, or the name of one class among several
            within = [one for one in within if one.__name__ == part] or within
    return list(within[0].model_fields)


def _models_within(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for inner in typing.get_args(annotation) for model in _models_within(inner)]
