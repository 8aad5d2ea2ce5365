"""Rows of Parquet and Arrow as Python's values, all columns of them, whatever stands in one.

A column that cannot be turned as a whole is turned value by value, and of a value that has no Python form what Arrow
holds is kept: a timestamp of a time zone that this machine does not know as UTC with the zone's name behind it, a date
beyond Python's years as Arrow writes it or as its number, bytes that are no UTF-8 as escapes, a time of day with its
nanoseconds.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

Fields = dict[str, Any]


class UnreadableValue(ValueError):  # noqa: N818  # it says what the value is; its row is a bad record
    """A text that cannot be read; the message says why, in a few words."""


def rows_of(batch: pa.RecordBatch, names: Sequence[str], text: int) -> Iterator[Fields | UnreadableValue]:
    """Give a batch's rows as dicts.

    Args:
        batch: Some rows.
        names: What each column is called in the dicts.
        text: The place of the column that holds the text: of a row whose text is no UTF-8 nothing is used.

    Yields:
        Every row, or why it cannot be used.
    """
    columns = [_values(column, place == text) for place, column in enumerate(batch.columns)]
    for values in zip(*columns, strict=True):
        wrong = next((value for value in values if isinstance(value, UnreadableValue)), None)
        yield wrong or dict(zip(names, values, strict=True))


def told_apart(names: Sequence[str]) -> list[str]:
    """The names of columns, the second of a name with a number behind it."""
    found: list[str] = []
    for name in names:
        number, free = 2, name
        while free in found or (free != name and free in names):
            number, free = number + 1, f"{name}_{number}"
        found.append(free)
    return found


def _values(column: pa.Array, is_text: bool) -> list[Any]:
    """A column's values; those that have no Python form in another one."""
    if _holds(column.type, _is_of_nanoseconds):
        return [_value(one, is_text) for one in column]
    try:
        values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    except Exception:  # whatever a time zone, a date or an extension type raises
        return [_value(one, is_text) for one in column]
    return [_finite(value) for value in values] if _holds(column.type, pa.types.is_floating) else values


def _value(scalar: pa.Scalar, is_text: bool) -> Any:
    """A value, in its Python form where it has one."""
    if not scalar.is_valid:
        return None
    if _holds(scalar.type, _is_of_nanoseconds):
        return _inside(scalar, is_text)
    try:
        return _finite(scalar.as_py(maps_as_pydicts="strict"))
    except Exception as error:  # see above
        if is_text and isinstance(error, UnicodeDecodeError):
            return UnreadableValue(f"not UTF-8: {error}")
    return _inside(scalar, is_text)


def _inside(scalar: Any, is_text: bool) -> Any:
    """A value without a Python form, by what it is made of."""
    kind = scalar.type
    if pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        return _value(scalar.value, is_text)
    if pa.types.is_map(kind):
        pairs = [[_value(entry[0], False), _value(entry[1], False)] for entry in scalar.values]
        keys = {key for key, _ in pairs if isinstance(key, str | int)}
        return dict(pairs) if len(keys) == len(pairs) else pairs
    if pa.types.is_struct(kind):
        found = {field.name: _value(scalar[place], is_text) for place, field in enumerate(kind)}
        return next((value for value in found.values() if isinstance(value, UnreadableValue)), found)
    return [_value(one, False) for one in scalar.values] if isinstance(scalar, pa.ListScalar) else _leaf(scalar)


def _leaf(scalar: Any) -> Any:
    """What Arrow holds of a value that Python cannot: as text, or as its number."""
    kind = scalar.type
    if _is_of_nanoseconds(kind):
        whole, rest = divmod(scalar.value, 1000)
        time = pa.scalar(whole, pa.time64("us")).as_py()
        return f"{time.isoformat('microseconds')}{rest:03d}" if rest else time
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace")
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    ways: list[Callable[[], Any]] = [
        lambda: f"{_told(scalar.cast(pa.int64()), kind.unit)}Z[{zone}]" if zone else scalar.cast(pa.string()).as_py(),
        lambda: scalar.cast(pa.int64()).as_py(),
        lambda: scalar.cast(pa.int32()).as_py(),
    ]
    for way in ways:
        with contextlib.suppress(Exception):  # the next way is the answer
            written = way()
            if not str(written).startswith("<"):  # "<value out of range: …>" is how Arrow writes such a date
                return written
    return str(scalar)


def _told(number: pa.Scalar, unit: str) -> str:
    """A moment of UTC, counted in a unit from 1970, as ISO 8601 writes it."""
    written: str = number.cast(pa.timestamp(unit)).cast(pa.string()).as_py()
    return written.replace(" ", "T")


def _holds(kind: pa.DataType, is_one: Callable[[pa.DataType], bool]) -> bool:
    """Tell whether values of a type are of some kind, or have one inside."""
    if pa.types.is_dictionary(kind):
        return _holds(kind.value_type, is_one)
    if isinstance(kind, pa.BaseExtensionType):
        return _holds(kind.storage_type, is_one)
    return is_one(kind) or any(_holds(kind.field(place).type, is_one) for place in range(kind.num_fields))


def _is_of_nanoseconds(kind: pa.DataType) -> bool:
    """Whether values are times of day finer than Python's; its timestamps and durations keep theirs."""
    return bool(pa.types.is_time64(kind)) and kind.unit == "ns"


def _finite(value: Any) -> Any:
    """A value with infinity, and what is no number, as text, however deep it stands."""
    if isinstance(value, float):
        return value if math.isfinite(value) else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value
