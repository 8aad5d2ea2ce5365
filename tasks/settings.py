"""The base of every stage's configuration: typed, frozen, and closed to unknown keys.

What holds of every number of every configuration is here too: true and false are none, one that DuckDB could not hold
is refused, and a million may be written as 1_000_000 or 1e6, and as 1M where tokens are counted.
"""

from __future__ import annotations

import functools
import math
import re
import typing
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, ValidatorFunctionWrapHandler, field_validator

GREATEST = 10**18
"""What DuckDB's 64 bits hold even when it is added to, or rounded on its way through a float."""
GREATEST_SEED = 2**63 - 1
SEEDS = ("seed", "shuffle")
"""Nothing is reckoned with these, so they may have all of the 64 bits."""
_WRITTEN = re.compile(r"\s*([+-]?\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d{1,3})?)\s?([mMbBtT]?)\s*", re.ASCII)
_TIMES = {"": 1, "m": 10**6, "b": 10**9, "t": 10**12}


class Closed(BaseModel):
    """What is typed, frozen, and closed to unknown keys: a record that ladm writes for itself, or `Settings`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Settings(Closed):
    """A stage's configuration. Unknown keys are refused, and values cannot change once validated."""

    # Outside every validator of the field itself, so that `deduplicate: true` and `gate: off` mean what they say there.
    @field_validator("*", mode="wrap")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        kinds = _numbers_of(cls, name)
        if kinds is None:
            return validate(value)
        if _holds_bool(value):
            raise ValueError("true and false (and yes, no, on and off) are not numbers; give a number, or leave it out")
        if kinds == {int}:
            value = _read(value, of_tokens="tokens" in name)
        found = validate(value)
        _check_size(found, GREATEST_SEED if name in SEEDS else GREATEST)
        return found


@functools.cache
def _numbers_of(model: type[BaseModel], name: str) -> frozenset[type] | None:
    """The types that a field's value is of, or is made of, if one is a number and none is a bool or anything at all."""
    field = model.model_fields.get(name)
    kinds = frozenset(_leaves(field.annotation)) if field else frozenset()
    return kinds if kinds & {int, float} and not kinds & {bool, Any} else None


def _leaves(annotation: Any) -> set[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return {type(choice) for choice in typing.get_args(annotation)}
    inner = [one for one in typing.get_args(annotation) if one is not Ellipsis]
    return {leaf for one in inner for leaf in _leaves(one)} if inner else {annotation} - {type(None)}


def _holds_bool(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return any(map(_holds_bool, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


def _read(value: Any, of_tokens: bool) -> Any:
    """The whole number that a text such as 1e6 stands for, or 1B where tokens are counted; what is no text, as it is.

    A million bytes or a window of 4k tokens may be meant in two ways, so they have no letters.
    """
    if isinstance(value, list | tuple):
        return [_read(one, of_tokens) for one in value]
    found = _WRITTEN.fullmatch(value) if isinstance(value, str) else None
    if found is None or (found[2] and not of_tokens):
        if isinstance(value, str) and value.strip()[:1].isdigit():
            letters = ", 1M, and a billion 1B" if of_tokens else ""
            raise ValueError(f"{value[:40]!r} is not a whole number; a million is 1000000, 1_000_000, 1e6{letters}")
        return value
    number = Decimal(found[1].replace("_", "")) * _TIMES[found[2].lower()]
    if number != number.to_integral_value():
        raise ValueError(f"{found[0][:40]!r} is not a whole number; give one without a fraction")
    return int(number)


def _check_size(found: Any, greatest: int) -> None:
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        for one in found:
            _check_size(one, greatest)
    elif isinstance(found, int) and abs(found) > greatest:
        raise ValueError(f"{str(found)[:40]} is too great; it is at most {greatest}")
    elif isinstance(found, float) and not math.isfinite(found):
        raise ValueError(f"{found} is not a finite number; give a finite one")
