"""Which field of records is the text, and which one says of what domain they are: told from some records."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

TEXTS = (
    *("text", "content", "contents", "raw_content", "raw_text", "body", "document", "article", "page_content"),
    *("full_text", "fulltext", "markdown", "code", "story", "passage", "abstract"),
)
"""Names by which a text goes, the likeliest first."""
DOMAINS = (
    *("pile_set_name", "redpajama_set_name", "set_name", "domain", "subset", "subdomain", "collection", "corpus"),
    *("dataset", "dataset_name", "data_source", "source_name", "category", "topic", "genre", "section", "type", "kind"),
    *("programming_language", "lang", "language", "source"),
)
"""Names by which a domain goes, the likeliest first."""
ENDINGS = ("set_name", "domain", "subset", "collection", "corpus", "dataset", "category", "topic", "genre", "language")
"""Of these, those that may stand at the end of a longer name: `red_pajama_subset`."""
WEAK = ("label", "dump", "crawl")
"""Names of what is a domain only where nothing else is: it tells little of what a text is like."""
MOST_DOMAINS = 200
FEWEST_TEXTS = 0.5
"""Share of the records that must have a text in a field for it to be the text."""
FEWEST_DOMAINS = 0.9
"""Share of the records that must have a domain in a field."""
SHORTEST_TEXT = 60
"""Characters that texts have on average, at least, in a field whose name does not say that it holds them."""
PER_DOMAIN = 2
"""Records that a domain has on average, at least: what is different in every record is a name or an address."""
DEEPEST = 3
LONGEST_JSON = 100_000
"""Characters of a string that is looked into for JSON."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
"""A name that SQL and JSON's paths take as it stands."""
LONGEST_NAME = 60


@dataclass(frozen=True)
class Chosen:
    """A field, and why it."""

    path: str
    values: Counter[str]
    """Of a domain: value → records of the sample."""


def text_field(records: Sequence[dict[str, Any]]) -> str | None:
    """The field that holds the text: one of a known name, or else the one of the longest strings; None: none does."""
    lengths: dict[str, list[int]] = {}
    words: Counter[str] = Counter()
    for record in records:
        for path, value in strings_of(record):
            lengths.setdefault(path, []).append(len(value))
            words[path] += " " in value or "\n" in value
    usable = {path: found for path, found in lengths.items() if len(found) >= FEWEST_TEXTS * len(records)}
    if not usable:
        return None
    mean = {path: sum(found) / len(found) for path, found in usable.items()}
    longest = max(mean, key=lambda path: mean[path])
    for name in TEXTS:
        for path in sorted(usable, key=lambda one: (one.count("."), one)):
            if path.rsplit(".", 1)[-1].lower() == name and mean[path] >= mean[longest] / 20:
                return path
    is_prose = mean[longest] >= SHORTEST_TEXT and words[longest] >= len(usable[longest]) / 2
    return longest if is_prose else None


def domain_field(records: Sequence[dict[str, Any]], text: str) -> Chosen | None:
    """The field that says of which domain a record is; None where none of a known name does.

    One with several values comes before one that is the same everywhere.
    """
    found: dict[str, Counter[str]] = {}
    for record in records:
        for path, value in (*strings_of(record), *_strings_in_json(record)):
            if path != text:
                found.setdefault(path, Counter())[value] += 1
    fit = {path: values for path, values in found.items() if _is_domain(values, len(records))}
    for names in (DOMAINS, WEAK):
        places = {path: names.index(known) for path in fit if (known := _known(_name(path))) in names}
        ranked = sorted(places, key=lambda path: (places[path], path.count("."), path))
        several = [path for path in ranked if len(fit[path]) > 1]
        for chosen in [*several, *ranked][:1]:
            return Chosen(chosen, fit[chosen])
    return None


def _is_domain(values: Counter[str], records: int) -> bool:
    filled = sum(number for value, number in values.items() if value)
    names = [value for value in values if value]
    if not names or filled < FEWEST_DOMAINS * records or len(names) > MOST_DOMAINS:
        return False
    if max(map(len, names)) > LONGEST_NAME or any("\n" in name or "://" in name for name in names):
        return False
    return len(names) == 1 or len(names) * PER_DOMAIN <= filled


def _name(path: str) -> str:
    """The last part of a path, as names of domains are compared."""
    return re.sub(r"[^a-z]+", "_", path.rsplit(".", 1)[-1].lower()).strip("_")


def _known(name: str) -> str:
    """The known name that a longer one ends with; any other as it is."""
    return next((one for one in ENDINGS if name.endswith(f"_{one}") and name not in DOMAINS), name)


def _strings_in_json(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """SQL expression → string, of fields that hold an object as JSON text: RedPajama's `meta`."""
    for name, value in record.items():
        if not isinstance(value, str) or not value.startswith("{") or len(value) > LONGEST_JSON:
            continue
        try:
            inside = orjson.loads(value)
        except orjson.JSONDecodeError:
            continue
        for path, text in strings_of(inside):
            if _PLAIN.fullmatch(name) and _PLAIN.fullmatch(path):
                yield f"try_cast({name} as json) ->> '$.{path}'", text


def strings_of(record: dict[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    """Dotted path → string, of a record."""
    for name, value in record.items():
        path = f"{prefix}{name}"
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict) and depth < DEEPEST:
            yield from strings_of(value, f"{path}.", depth + 1)
