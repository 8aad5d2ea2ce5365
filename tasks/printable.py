"""Text that is fit to be shown: in a terminal, a log, a page or a card, whatever hostile thing it came from.

The one place that decides which characters are shown as they are, and how a text is cut that is too long.
"""

from __future__ import annotations

EXCERPT_CHARACTERS = 200
CELL_CHARACTERS = 300


def printable(text: str | bytes, limit: int = EXCERPT_CHARACTERS) -> str:
    r"""Make a hostile text fit for a terminal, a log and one line.

    Args:
        text: Anything; only its beginning is looked at. Bytes that are not UTF-8 become `\xNN`.
        limit: The most characters of the answer.

    Returns:
        The text with every character that is not printable (controls, line separators, bidirectional overrides)
        as a Python escape, cut with `…` at `limit`.
    """
    # Four bytes are the most that one character of UTF-8 takes, so this is never short of `limit` characters.
    head = text[: 4 * (limit + 1)].decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text[: limit + 1]
    shown: list[str] = []
    room = limit
    for character in head:
        one = character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        room -= len(one)
        if room < 0:
            room += len(one)
            while room < 1:
                room += len(shown.pop())
            return "".join(shown) + "…"
        shown.append(one)
    return "".join(shown)


def cell_text(cell: object, longest: int = CELL_CHARACTERS) -> str:
    """A value of a table as printable text on one line, cut with `…` at `longest` characters."""
    if cell is None:
        return "NULL"
    return printable(f"{cell:.6g}" if isinstance(cell, float) else str(cell), longest)
