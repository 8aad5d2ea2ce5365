"""Junk: text that fills a window and teaches nothing, made of the user's own documents.

Attention goes far wherever nothing near is worth attending to, so a score that tells whole documents from spliced ones
may still put a list of words above a novel. `ladm evaluate` therefore asks of a calibration what it does with junk.
Each kind here is one that corpora really hold: repeats, tables and records, lists, logs, generated code, menus, encoded
and random data. Words, lines and numbers are those of the user's own documents; everything follows from the documents
and the seed.

A calibration's gate is fitted on real windows alone, so no kind here has any part in what it refuses.

A kind is a plain function (source, random) → endless pieces of text; `junk_ids` takes as many as fill a window.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Pieces = Iterator[str]
Random = np.random.Generator

_LONGEST_WORD = 14  # characters; text without spaces would be one word otherwise
_PARAGRAPH = (200, 600)  # characters
_PAGE = (0.12, 0.3)  # of the window
_EDITED = (0.05, 0.2)  # of a page's words


@dataclass(frozen=True)
class Source:
    """What a window of junk is made of.

    Attributes:
        text: A window of the document whose counterpart the junk is.
        others: Windows of other documents of its domain; at least one.
        encode: Text to token ids, without special tokens.
        decode: Token ids to text.
        length: Tokens in a window.
    """

    text: str
    others: Sequence[str]
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    length: int


Kind = Callable[[Source, Random], Pieces]


def junk_ids(kind: str, source: Source, seed: int) -> Ids:
    """A window of junk: `source.length` token ids.

    Args:
        kind: One of `KINDS`.
        source: What it is made of.
        seed: Another seed gives other junk of the same kind.
    """
    digest = hashlib.sha256(f"{seed} {kind} {source.text}".encode("utf-8", "surrogatepass")).digest()
    return filled(KINDS[kind](source, np.random.default_rng(int.from_bytes(digest[:8], "big"))), source)


def filled(pieces: Pieces, source: Source) -> Ids:
    """The first `source.length` token ids of the pieces' text."""
    text, wanted = "", 4 * source.length
    while True:
        parts, characters = [text], len(text)
        while characters < wanted:
            parts.append(next(pieces))
            characters += len(parts[-1])
        text = "".join(parts)
        ids = source.encode(text)
        if len(ids) >= source.length:
            return np.array(ids[: source.length], dtype=np.int32)
        wanted = characters * 2


def words_of(text: str) -> list[str]:
    """The words of a text, in its order; two at least."""
    found = [word[:_LONGEST_WORD] for word in re.findall(r"[^\W\d_]{2,}", text)]
    return found if len(found) > 1 else ["text", "page"]


def _draw(random: Random, items: Sequence[str]) -> str:
    return items[int(random.integers(len(items)))]


def _draws(random: Random, items: Sequence[str], least: int, most: int) -> list[str]:
    return [_draw(random, items) for _ in range(int(random.integers(least, most + 1)))]


def _passage(source: Source, random: Random, least: float, most: float) -> str:
    """A passage of the document, so many characters long."""
    size = int(random.uniform(least, most))
    start = int(random.integers(max(1, len(source.text) - size)))
    return source.text[start : start + size].strip() or "text"


def repeated_paragraph(source: Source, random: Random) -> Pieces:
    """One paragraph over and over."""
    paragraph = _passage(source, random, *_PARAGRAPH)
    while True:
        yield paragraph + "\n\n"


def repeated_page(source: Source, random: Random) -> Pieces:
    """One page over and over, with a page number."""
    page = _passage(source, random, *(share * len(source.text) for share in _PAGE))
    for number in count(int(random.integers(1, 300))):
        yield f"{page}\n\n{number}\n\n"


def edited_page(source: Source, random: Random) -> Pieces:
    """One page over and over, each time with some of its words replaced by others of the document."""
    page = _passage(source, random, *(share * len(source.text) for share in _PAGE))
    words, share = words_of(source.text), random.uniform(*_EDITED)
    while True:
        yield (
            re.sub(r"[^\W\d_]{2,}", lambda found: _draw(random, words) if random.random() < share else found[0], page)
            + "\n\n"
        )


def table(source: Source, random: Random) -> Pieces:
    """Rows of a table: cells of words and of numbers."""
    words = words_of(source.text)
    separator = _draw(random, (" | ", "\t", ",", " & ", "  "))
    columns = [bool(random.random() < 0.4) for _ in range(int(random.integers(3, 9)))]  # True: of words
    digits = [int(random.integers(1, 6)) for _ in columns]
    yield separator.join(_draw(random, words).capitalize() for _ in columns) + "\n"
    while True:
        cells = [
            " ".join(_draws(random, words, 1, 2)) if is_words else _number(random, size)
            for is_words, size in zip(columns, digits, strict=True)
        ]
        yield separator.join(cells) + "\n"


def _number(random: Random, digits: int) -> str:
    whole = str(int(random.integers(10**digits)))
    return f"{whole}.{int(random.integers(100)):02d}" if digits > 3 else whole


def records(source: Source, random: Random) -> Pieces:
    """Records with the same fields, one after the other."""
    words = words_of(source.text)
    fields = [_draw(random, words) for _ in range(int(random.integers(3, 8)))]
    of_number = [bool(random.random() < 0.5) for _ in fields]
    for number in count(int(random.integers(1, 5000))):
        lines = [f"Record: {number}"]
        for name, is_number in zip(fields, of_number, strict=True):
            value = str(int(random.integers(100_000))) if is_number else " ".join(_draws(random, words, 1, 4))
            lines.append(f"{name}: {value}")
        yield "\n".join(lines) + "\n\n"


def sorted_words(source: Source, random: Random) -> Pieces:
    """The words of the domain's documents in alphabetical order, one a line."""
    words = sorted({word.lower() for text in (source.text, *source.others) for word in words_of(text)})
    start = int(random.integers(len(words)))
    while True:
        yield "\n".join(words[start:]) + "\n"
        start = 0


def random_words(source: Source, random: Random) -> Pieces:
    """Words of the document in no order."""
    words = words_of(source.text)
    separator = _draw(random, (" ", "\n", ", "))
    while True:
        yield _draw(random, words) + separator


def log(source: Source, random: Random) -> Pieces:
    """Lines of a log: a time, a level, a component, and one of a few messages with other numbers."""
    words = words_of(source.text)
    parts = [_draw(random, words).lower() for _ in range(4)]
    messages = [" ".join(_draws(random, words, 3, 7)) for _ in range(int(random.integers(4, 12)))]
    seconds = float(random.integers(86_400))
    while True:
        seconds += float(random.exponential(7))
        clock = f"{int(seconds) // 3600 % 24:02d}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
        level = _draw(random, ("INFO", "INFO", "DEBUG", "WARN", "ERROR"))
        yield (
            f"2023-{1 + int(seconds) // 86_400 % 12:02d}-11 {clock} {level} [{_draw(random, parts)}] "
            f"{_draw(random, messages)} id={int(random.integers(1_000_000))}\n"
        )


def generated_code(source: Source, random: Random) -> Pieces:
    """Accessors, as a generator writes them, for fields named by the document's words."""
    words = words_of(source.text)
    while True:
        field = "".join(word.capitalize() for word in _draws(random, words, 1, 3))
        kind = _draw(random, ("int", "String", "boolean", "long"))
        lower = field[0].lower() + field[1:]
        yield (
            f"    public {kind} get{field}() {{\n        return this.{lower};\n    }}\n\n"
            f"    public void set{field}({kind} {lower}) {{\n        this.{lower} = {lower};\n    }}\n\n"
        )


def menus(source: Source, random: Random) -> Pieces:
    """What is around the pages of a site: menus, crumbs, links and footers, page after page."""
    words = words_of(source.text)
    top = [_draw(random, words).capitalize() for _ in range(int(random.integers(5, 10)))]
    footer = "About us | Contact | Terms of use | Privacy | Help\n© All rights reserved.\n"
    while True:
        yield "\n".join(f"* {item}" for item in ("Home", *top, "Log in", "Search")) + "\n"
        yield " > ".join(["Home", _draw(random, top), _draw(random, words).capitalize()]) + "\n"
        for _ in range(int(random.integers(4, 12))):
            yield " ".join(_draws(random, words, 1, 4)).capitalize() + _draw(random, ("\n", " (read more)\n", " »\n"))
        yield "Share this page: Facebook Twitter Email Print\n" + footer + "\n"


def encoded(source: Source, random: Random) -> Pieces:
    """Random bytes in base64, in lines of 76 characters."""
    while True:
        yield base64.b64encode(random.bytes(57)).decode() + "\n"


def hexadecimal(source: Source, random: Random) -> Pieces:
    """Random bytes in hexadecimal digits."""
    while True:
        yield random.bytes(32).hex() + "\n"


def random_tokens(source: Source, random: Random) -> Pieces:
    """Tokens of the domain's documents in no order."""
    ids = np.array([one for text in (source.text, *source.others[:3], "text") for one in source.encode(text)])
    while True:
        yield source.decode(random.choice(ids, source.length).tolist())


KINDS: dict[str, Kind] = {
    "repeated-paragraph": repeated_paragraph,
    "repeated-page": repeated_page,
    "edited-page": edited_page,
    "table": table,
    "records": records,
    "sorted-words": sorted_words,
    "random-words": random_words,
    "log": log,
    "generated-code": generated_code,
    "menus": menus,
    "base64": encoded,
    "hexadecimal": hexadecimal,
    "random-tokens": random_tokens,
}
"""Every kind of junk, by name."""
