"""The contrast set: windows of the user's own corpus, and others made of the same text that must score below them.

Broken text, of which every part is real:

- `spliced`: passages of other documents of the same domain, each from another document where there are enough;
- `shuffled`: the window's own passages in another order;
- `halves`: its beginning, and the rest of another document;
- `interleaved`: it and another document in turns, each in its own order;
- `crumbs`: a few tokens at a time of other documents (in the calibrating half alone);
- `lists`: no new text, the whole windows of domains that are lists by nature (dictionaries, changelogs).

And junk (`junk.py`), in the testing half, since nothing is fitted on it: one window a document, of a kind that is dealt
to it, so that every kind comes up equally often, and in as many domains as possible.

Documents belong to one of two halves, `calibrate` and `test`, by a hash, and no window is made from documents of both.
A set that a run makes to calibrate by is all calibrating half; the junk in it is looked at when all is fitted.
Everything follows from the seed and the documents, not from their order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ladm.tasks.errors import AccountError
from ladm.tasks.evaluation import broken, junk, passages
from ladm.tasks.evaluation.passages import Part, SourceWindow
from ladm.tasks.settings import Settings
from ladm.tasks.tokenizing.decoding import decoder_of

Ids = npt.NDArray[np.int32]

WHOLE, SPLICED, SHUFFLED, HALVES = "whole", "spliced", "shuffled", "halves"
INTERLEAVED, CRUMBS = broken.INTERLEAVED, broken.CRUMBS
BROKEN = (SPLICED, SHUFFLED, HALVES, INTERLEAVED, CRUMBS)
"""The kinds of window that are broken: made of passages of real documents."""
JUNK = tuple(junk.KINDS)
"""The kinds of window that are junk."""
LISTS = "lists"
CONTRASTS = (*BROKEN, *JUNK, LISTS)
CALIBRATE, TEST = "calibrate", "test"

_JUNK_SOURCES = 8  # documents that a window of junk takes its words from, at most
MOST_DOCUMENTS = 200
"""Documents of a domain's half that are drawn on, at most: the set, and memory, do not grow with the corpus."""
FEWEST_DOCUMENTS = 3
"""A domain's half with fewer documents gives no contrast: a spliced window would have too few to draw on."""


class ContrastConfig(Settings):
    """What `ladm evaluate` makes of the corpus."""

    windows: int | None = Field(default=None, ge=1)
    """Whole windows, in all, shared evenly among the domains; 20 a domain when not given."""
    seed: int = Field(default=0, ge=0)
    """Another seed gives other passages and other halves."""
    lists: str = r"dictionar|changelog|glossar|lexicon|word.?list|reference"
    """Regular expression: domains whose name it finds, whatever the case, are lists, not texts."""
    half: Literal["both", "calibrate", "test"] = "both"
    """`both`: documents are parted into a calibrating and a testing half. Else all of them are of that one."""
    sample_windows: int | None = Field(default=None, ge=1)
    """Whole windows of the bundled sample that the set has as well, more where the corpus has too few; none when not
    given."""
    window_length: int | None = Field(default=None, ge=1)
    """Tokens of these."""
    exclude: tuple[str, ...] = ()
    """Documents, by doc_id, that are left out: those that a calibration to be tested was made from."""


@dataclass(frozen=True)
class Coder:
    """The tokenizer, as far as junk needs it."""

    encode: Callable[[str], Sequence[int]]
    """Text to token ids, without special tokens."""
    decode: Callable[[Ids], str]

    @classmethod
    def of(cls, tokenizer: Any, decode: Callable[[Ids], str] | None = None) -> Coder:
        """Of a loaded tokenizer; `decode` where its decoder was made before."""
        return cls(
            lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids), decode or decoder_of(tokenizer)
        )


@dataclass(frozen=True, slots=True)
class ContrastWindow:
    """One window to score.

    Attributes:
        window_id: Names it: base document, kind.
        base: The document that it belongs to, whole or as the counterpart.
        domain: Of all documents in it.
        kind: `whole`, or one of `BROKEN` or `JUNK`.
        half: `calibrate` or `test`.
        ids: Token ids, shape [L].
        documents: Every document that it has text of; of junk, all that it could have words of.
        cuts: First tokens of its passages but the first; none of junk.
        parts: Of each passage, whose it is: a place in `documents`; none of junk.
    """

    window_id: str
    base: str
    domain: str
    kind: str
    half: str
    ids: Ids
    documents: tuple[str, ...]
    cuts: tuple[int, ...]
    parts: tuple[int, ...] = ()


def is_list(config: ContrastConfig, domain: str) -> bool:
    """Whether a domain's documents are lists."""
    return re.search(config.lists, domain, re.IGNORECASE) is not None


def half_of(config: ContrastConfig, doc_id: str) -> str:
    """The half that a document belongs to; it does not depend on the other documents."""
    if config.half != "both":
        return config.half
    return (CALIBRATE, TEST)[hashed(config.seed, "half", doc_id) % 2]


def contrast_set(
    windows: Iterable[SourceWindow], config: ContrastConfig, coder: Coder | None = None
) -> list[list[ContrastWindow]]:
    """The windows to score, a list for each document chosen, in an order in which any beginning is a balanced set.

    Args:
        windows: All of one length; the first of each document, or several.
        config: How many, and the seed.
        coder: The tokenizer; without one there is no junk.

    Returns:
        Of each document the whole window first; empty where no domain's half has `FEWEST_DOCUMENTS`.
    """
    pools: dict[tuple[str, str], list[SourceWindow]] = {}
    for window in windows:
        pools.setdefault((window.domain, half_of(config, window.doc_id)), []).append(window)
    pools = {name: _one_a_document_first(config, pool) for name, pool in pools.items()}
    usable = {name: pool for name, pool in pools.items() if len({one.doc_id for one in pool}) >= FEWEST_DOCUMENTS}
    with_junk = config.half if config.half == CALIBRATE else TEST
    firsts = _first_kinds(config, [domain for domain, half in usable if half == with_junk])
    made: list[tuple[int, str, str, list[ContrastWindow]]] = []
    for (domain, half), count in _shares(usable, config.windows).items():
        pool = usable[domain, half]
        for place in range(count):
            of_one = _broken(config, pool, place, half)
            if coder and half == with_junk:
                of_one.append(_junk(config, pool, place, junk_kind(config, firsts[domain] + place), coder))
            made.append((place, domain, half, of_one))
    made.sort(key=lambda one: one[:3])
    return [of_one for *_, of_one in made]


def _one_a_document_first(config: ContrastConfig, pool: Sequence[SourceWindow]) -> list[SourceWindow]:
    """Windows in the order in which they are drawn: of no document a second one before every other has its first."""
    before: dict[str, int] = {}
    turns: list[tuple[int, int, SourceWindow]] = []
    for window in sorted(pool, key=lambda window: hashed(config.seed, "order", window.name)):
        turns.append((before.setdefault(window.doc_id, 0), len(turns), window))
        before[window.doc_id] += 1
    return [window for *_, window in sorted(turns, key=lambda turn: turn[:2])]


def junk_kind(config: ContrastConfig, place: int) -> str:
    """The kind of junk at a place in the order in which they are dealt, over and over."""
    order = sorted(JUNK, key=lambda kind: hashed(config.seed, "junk", kind))
    return order[place % len(order)]


def _first_kinds(config: ContrastConfig, domains: Sequence[str]) -> dict[str, int]:
    """Where each domain begins in that order: as far from the others as can be, so that all kinds come up equally."""
    order = sorted(set(domains), key=lambda domain: hashed(config.seed, "domain", domain))
    return {domain: rank * len(JUNK) // len(order) for rank, domain in enumerate(order)}


def _shares(pools: dict[tuple[str, str], list[SourceWindow]], windows: int | None) -> dict[tuple[str, str], int]:
    """How many documents of each domain's half to use: evenly, one after the other, until all are given out."""
    domains = len({domain for domain, _ in pools})
    left = 20 * domains if windows is None else windows
    shares = dict.fromkeys(sorted(pools), 0)
    while left:
        open_pools = [name for name in shares if shares[name] < len(pools[name])]
        if not open_pools:
            break
        # The testing half first: what is left over must not go to calibrating alone.
        for name in sorted(open_pools, key=lambda name: (shares[name], name[1] != TEST, name[0])):
            if left:
                shares[name] += 1
                left -= 1
    return shares


def _broken(config: ContrastConfig, pool: Sequence[SourceWindow], place: int, half: str) -> list[ContrastWindow]:
    """The whole window of one document, and its broken counterparts."""
    base = pool[place]
    length = len(base.ids)
    random = np.random.default_rng(hashed(config.seed, "pieces", base.name))
    others = [window for window in pool if window.doc_id != base.doc_id]

    def window(kind: str, parts: list[Part]) -> ContrastWindow:
        ids = np.concatenate([source.ids[start:end] for source, start, end in parts])
        if ids.shape != (length,):
            raise AccountError(f"{kind}: {len(ids)} tokens instead of {length}")
        ends = np.cumsum([end - start for _, start, end in parts])
        documents = list(dict.fromkeys(source.doc_id for source, _, _ in parts))
        return ContrastWindow(
            window_id=f"{base.name}:{kind}",
            base=base.doc_id,
            domain=base.domain,
            kind=kind,
            half=half,
            ids=ids,
            documents=tuple(documents),
            cuts=tuple(int(end) for end in ends[:-1]),
            parts=tuple(documents.index(source.doc_id) for source, _, _ in parts),
        )

    in_halves = passages.halves(base, others, random)
    other = in_halves[1][0]
    made = [
        window(WHOLE, [(base, 0, length)]),
        window(SPLICED, passages.spliced(others, length, random)),
        window(SHUFFLED, passages.shuffled(base, random)),
        window(HALVES, in_halves),
    ]
    in_turns = broken.interleaved(length, random)
    made.append(window(INTERLEAVED, [((base, other)[number], start, end) for number, start, end in in_turns]))
    if half == CALIBRATE:
        crumbs = broken.crumbs(len(others), length, random)
        made.append(window(CRUMBS, [(others[number], start, end) for number, start, end in crumbs]))
    return made


def _junk(config: ContrastConfig, pool: Sequence[SourceWindow], place: int, kind: str, coder: Coder) -> ContrastWindow:
    """A window of junk made of one document, and of some others of its domain."""
    base = pool[place]
    others = [pool[(place + step) % len(pool)] for step in range(1, min(_JUNK_SOURCES, len(pool)))]
    return ContrastWindow(
        window_id=f"{base.name}:{kind}",
        base=base.doc_id,
        domain=base.domain,
        kind=kind,
        half=half_of(config, base.doc_id),
        ids=junk.junk_ids(kind, junk_source(base, others, coder), config.seed),
        documents=tuple(one.doc_id for one in (base, *others)),
        cuts=(),
    )


def junk_source(base: SourceWindow, others: Sequence[SourceWindow], coder: Coder) -> junk.Source:
    """What a window of junk is made of: one document, and others of its domain."""
    return junk.Source(
        text=coder.decode(base.ids),
        others=[coder.decode(other.ids) for other in others],
        encode=coder.encode,
        decode=lambda ids: coder.decode(np.array(ids, np.int32)),
        length=len(base.ids),
    )


def hashed(seed: int, purpose: str, name: str) -> int:
    """A number that follows from the seed, what it is for, and a name."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {name}".encode()).digest()[:8], "big")
