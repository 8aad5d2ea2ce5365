"""How long documents are, in which scripts, and what follows from it: estimates from what was looked at."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ladm.flows.init.entries import Entry
from ladm.flows.init.fields import strings_of
from ladm.flows.init.kinds import ending_of, extension_of
from ladm.flows.init.sample import spread
from ladm.tasks.manifest import SourceFile
from ladm.tasks.reading.readers import UnreadableFile
from ladm.tasks.reading.streams import blocks_of
from ladm.tasks.storage.file_systems import io_errors, opened

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
BYTES_A_TOKEN = {"LATIN": 4.0}
OTHER_SCRIPTS = 2.0
"""Bytes of UTF-8 that a token of the embedded model stands for, about."""
CODE = 3.0
COMPRESSED = 3.5
"""How much longer a compressed text is, about."""
LETTERS = 400
"""Letters of a document that are looked at for its script."""
HEAD_BYTES = 4096


@dataclass
class Measured:
    """What was found of the documents."""

    documents: float = 0.0
    """In all, about."""
    looked_at: int = 0
    fill: Counter[int] = field(default_factory=Counter)
    """Window length → documents that fill it, times 1,000."""
    tokens: Counter[int] = field(default_factory=Counter)
    """Window length → their tokens."""
    scripts: Counter[str] = field(default_factory=Counter)
    """Script, as Unicode names it → letters."""

    def add(self, tokens: float, number: float) -> None:
        """Count documents of so many tokens."""
        self.documents += number
        for length in LENGTHS:
            if tokens >= length:
                self.fill[length] += round(1000 * number)
                self.tokens[length] += round(tokens * number)

    def filling(self, length: int) -> int:
        """Documents that fill a window, about."""
        return round(self.fill[length] / 1000)


def measured(entries: Sequence[Entry], tree: bool) -> Measured:
    """Estimate the lengths of the documents of some entries."""
    found = Measured()
    for entry in entries:
        if entry.sample is None:
            _of_files(found, entry, tree)
            continue
        texts = [text for record in entry.sample.records for path, text in strings_of(record) if path == entry.text]
        for text in texts:
            found.looked_at += 1
            script = _note_script(found, text)
            found.add(len(text.encode("utf-8", "replace")) / _bytes_a_token(script, False), 1 / entry.sample.share)
    return found


def _of_files(found: Measured, entry: Entry, tree: bool) -> None:
    """Files that are a document each: their sizes are known."""
    scripts: Counter[str] = Counter()
    for file in spread(entry.files, 8):
        if head := _head(file):
            scripts[_note_script(found, head)] += 1
    script = scripts.most_common(1)[0][0] if scripts else "LATIN"
    for file in entry.files:
        found.looked_at += 1
        times = COMPRESSED if extension_of(ending_of(file.uri))[1] else 1.0
        found.add(file.size * times / _bytes_a_token(script, tree), 1)


def _bytes_a_token(script: str, code: bool) -> float:
    return CODE if code else BYTES_A_TOKEN.get(script, OTHER_SCRIPTS)


def _head(file: SourceFile) -> str:
    try:
        with opened(file.uri) as stream:
            return next(iter(blocks_of(stream, file.uri)), b"")[:HEAD_BYTES].decode("utf-8", "ignore")
    except io_errors(UnreadableFile, ValueError):
        return ""


def _note_script(found: Measured, text: str) -> str:
    """The script of a text, by its first letters."""
    own: Counter[str] = Counter()
    for character in text[: 10 * LETTERS]:
        if character.isalpha():
            own[unicodedata.name(character, "?").split(" ", 1)[0].split("-", 1)[0]] += 1
            if own.total() >= LETTERS:
                break
    found.scripts += own
    return own.most_common(1)[0][0] if own else "LATIN"
