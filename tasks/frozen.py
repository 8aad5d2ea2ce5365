"""The base of the records that ladm writes for itself by the hundred thousand: typed, frozen, closed, and small.

Pydantic's models, which settings are, take several times the memory and the time: a plan over a hundred thousand jobs
holds a manifest and some shards of each.
"""

from __future__ import annotations

from typing import Any, Self

import msgspec


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What is typed, frozen, and closed to unknown keys. Types are checked where it is read, not where it is made.

    No such record is part of a circle, so that Python's collector need not look at them.
    """

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """It, from what `as_dict` or JSON gave.

        Raises:
            ValueError: It is not of that form.
        """
        try:
            return msgspec.convert(content, cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{cls.__name__}: {error}") from None

    @classmethod
    def from_json(cls, content: bytes | str) -> Self:
        """It, from JSON.

        Raises:
            ValueError: It is not JSON, or not of that form.
        """
        try:
            return msgspec.json.decode(content, type=cls)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise ValueError(f"{cls.__name__}: {error}") from None

    def share(self, **values: Any) -> None:
        """Put equal values in the place of some fields' own, so that many records have them together."""
        for name, value in values.items():
            msgspec.structs.force_setattr(self, name, value)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of its fields, in their order."""
        return cls.__struct_fields__

    def as_dict(self) -> dict[str, Any]:
        """It in dictionaries, lists and values of JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def as_json(self) -> bytes:
        """It in JSON, as `as_dict` gives it."""
        return msgspec.json.encode(self.as_dict())

    def replaced(self, **changes: Any) -> Self:
        """The same with other values of some fields."""
        return msgspec.structs.replace(self, **changes)
