"""The contrast set: windows of the user's own corpus, and the same text with its long-range dependencies broken.

A scorer that measures dependency must put a whole window above what is made of it here:

- `spliced`: passages of other documents of the same domain, each from another document where there are enough;
- `shuffled`: the window's own passages in another order;
- `halves`: its beginning, and the rest of another document of the domain;
- `lists`: no new text, the whole windows of domains that are lists by nature (dictionaries, changelogs).

Where passages begin and how long they are is drawn at random, so that no cut lies on the grid of spans. Documents
belong to one of two halves, `calibrate` and `test`, by a hash of their content, and a window is only ever made from
documents of one half. Everything follows from the seed and the documents' content, not from their order or number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from ladm.tasks.errors import AccountError
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts
from ladm.tasks.settings import Settings
from ladm.tasks.storage.store import Store, table_of

Ids = npt.NDArray[np.int32]

WHOLE, SPLICED, SHUFFLED, HALVES = "whole", "spliced", "shuffled", "halves"
BROKEN = (SPLICED, SHUFFLED, HALVES)
"""The kinds of window that are made from whole ones."""
KINDS = (WHOLE, *BROKEN)
LISTS = "lists"
CONTRASTS = (*BROKEN, LISTS)
CALIBRATE, TEST = "calibrate", "test"

_SHORTEST_PASSAGE, _LONGEST_PASSAGE = 0.05, 0.22  # of the window: 205 to 901 tokens of 4,096
_EARLIEST_HALF, _LATEST_HALF = 0.4, 0.6
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
    halves: bool = True
    """Whether documents are parted into a calibrating and a testing half; else all of them test."""
    exclude: tuple[str, ...] = ()
    """Documents, by doc_id, that are left out: those that a calibration to be tested was made from."""


@dataclass(frozen=True, slots=True)
class SourceWindow:
    """One window of one document, as tokenization cut it."""

    doc_id: str
    domain: str
    ids: Ids


@dataclass(frozen=True, slots=True)
class ContrastWindow:
    """One window to score.

    Attributes:
        window_id: Names it: base document, kind.
        base: The document that it belongs to, whole or as the counterpart.
        domain: Of all documents in it.
        kind: `whole`, `spliced`, `shuffled` or `halves`.
        half: `calibrate` or `test`.
        ids: Token ids, shape [L].
        documents: Every document that it has text of.
        cuts: First tokens of its passages but the first.
    """

    window_id: str
    base: str
    domain: str
    kind: str
    half: str
    ids: Ids
    documents: tuple[str, ...]
    cuts: tuple[int, ...]


def is_list(config: ContrastConfig, domain: str) -> bool:
    """Whether a domain's documents are lists."""
    return re.search(config.lists, domain, re.IGNORECASE) is not None


def half_of(config: ContrastConfig, doc_id: str) -> str:
    """The half that a document belongs to; it does not depend on the other documents."""
    if not config.halves:
        return TEST
    return (CALIBRATE, TEST)[_hash(config.seed, "half", doc_id) % 2]


def contrast_set(windows: Iterable[SourceWindow], config: ContrastConfig) -> list[ContrastWindow]:
    """All windows to score, four for each document chosen, in an order in which any beginning is a balanced set.

    Args:
        windows: At most one a document, all of one length.
        config: How many, and the seed.

    Returns:
        The contrast set; empty where no domain's half has `FEWEST_DOCUMENTS`.
    """
    pools: dict[tuple[str, str], list[SourceWindow]] = {}
    for window in windows:
        pools.setdefault((window.domain, half_of(config, window.doc_id)), []).append(window)
    for pool in pools.values():
        pool.sort(key=lambda window: _hash(config.seed, "order", window.doc_id))
    usable = {name: pool for name, pool in pools.items() if len(pool) >= FEWEST_DOCUMENTS}
    made: list[tuple[int, str, str, list[ContrastWindow]]] = []
    for (domain, half), count in _shares(usable, config.windows).items():
        pool = usable[domain, half]
        made += [(place, domain, half, _four(config, pool, place, half)) for place in range(count)]
    made.sort(key=lambda one: one[:3])
    return [window for *_, four in made for window in four]


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


def _four(config: ContrastConfig, pool: Sequence[SourceWindow], place: int, half: str) -> list[ContrastWindow]:
    """The whole window of one document, and its three counterparts."""
    base = pool[place]
    length = len(base.ids)
    random = np.random.default_rng(_hash(config.seed, "pieces", base.doc_id))
    others = [window for window in pool if window.doc_id != base.doc_id]

    def window(kind: str, parts: list[tuple[SourceWindow, int, int]]) -> ContrastWindow:
        ids = np.concatenate([source.ids[start:end] for source, start, end in parts])
        if ids.shape != (length,):
            raise AccountError(f"{kind}: {len(ids)} tokens instead of {length}")
        ends = np.cumsum([end - start for _, start, end in parts])
        return ContrastWindow(
            window_id=f"{base.doc_id}:{kind}",
            base=base.doc_id,
            domain=base.domain,
            kind=kind,
            half=half,
            ids=ids,
            documents=tuple(dict.fromkeys(source.doc_id for source, _, _ in parts)),
            cuts=tuple(int(end) for end in ends[:-1]),
        )

    cut = int(random.integers(int(_EARLIEST_HALF * length), int(_LATEST_HALF * length) + 1))
    other = others[int(random.integers(len(others)))]
    return [
        window(WHOLE, [(base, 0, length)]),
        window(SPLICED, _spliced(others, length, random)),
        window(SHUFFLED, _shuffled(base, random)),
        window(HALVES, [(base, 0, cut), (other, cut, length)]),
    ]


def _spliced(
    others: Sequence[SourceWindow], length: int, random: np.random.Generator
) -> list[tuple[SourceWindow, int, int]]:
    """Passages from random places of other documents; a document comes again only when all have had their turn."""
    parts: list[tuple[SourceWindow, int, int]] = []
    turn: list[int] = []
    for size in _passage_lengths(length, random):
        if not turn:
            last = parts[-1][0].doc_id if parts else None
            turn = [int(number) for number in random.permutation(len(others))]
            if len(turn) > 1 and others[turn[0]].doc_id == last:
                turn.append(turn.pop(0))
        source = others[turn.pop(0)]
        start = int(random.integers(length - size + 1))
        parts.append((source, start, start + size))
    return parts


def _shuffled(base: SourceWindow, random: np.random.Generator) -> list[tuple[SourceWindow, int, int]]:
    """The window's passages in an order in which none follows the passage that it follows in the text."""
    ends = np.cumsum(_passage_lengths(len(base.ids), random))
    starts = np.concatenate([[0], ends[:-1]])
    while True:
        order = random.permutation(len(ends))
        if not np.any(np.diff(order) == 1):
            return [(base, int(starts[number]), int(ends[number])) for number in order]


def _passage_lengths(length: int, random: np.random.Generator) -> list[int]:
    """Random lengths that add up to the window's; each between a twentieth and two ninths of it, or nearly so."""
    shortest, longest = round(_SHORTEST_PASSAGE * length), round(_LONGEST_PASSAGE * length)
    lengths: list[int] = []
    while (left := length - sum(lengths)) > 0:
        size = int(random.integers(shortest, longest + 1))
        # A remainder too short for a passage of its own goes to the last one.
        lengths.append(left if left - size < shortest else size)
    return lengths


CONTRAST = pa.schema(
    [
        pa.field("window_id", pa.string(), nullable=False),
        pa.field("base", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("half", pa.string(), nullable=False),
        pa.field("input_ids", pa.large_list(pa.int32()), nullable=False),
        pa.field("documents", pa.list_(pa.string()), nullable=False),
        pa.field("cuts", pa.list_(pa.int32()), nullable=False),
    ]
)
"""contrast/: one row a window of the contrast set, four a shard."""

NOT_DRAWN = "not drawn for the contrast set"


def contrast(job: Job, store: Store, key: str) -> Outcome:
    """Make the contrast set of all token shards: a shard for each document chosen, its whole window first.

    Only document ids are read of all windows; token ids only of those that are drawn on.
    """
    config = ContrastConfig.model_validate(job.config)
    drawn = _drawn(store, job, config)
    windows = []
    for shard in job.all("windows"):
        for batch in store.shard_batches(shard, rows=64):
            for row in batch.select(["window_id", "doc_id", "domain", "input_ids"]).to_pylist():
                if row["window_id"] in drawn:
                    windows.append(SourceWindow(row["doc_id"], row["domain"], np.array(row["input_ids"], np.int32)))
    made = contrast_set(windows, config)
    shards = []
    for number in range(0, len(made), len(KINDS)):
        four = made[number : number + len(KINDS)]
        rows = {
            name: [getattr(window, "ids" if name == "input_ids" else name) for window in four]
            for name in CONTRAST.names
        }
        shards.append(store.write_shard("contrast", _content_key(four), table_of(rows, CONTRAST)))
    received = sum(shard.rows for shard in job.all("windows"))
    dropped = {NOT_DRAWN: received - len(windows)} if received > len(windows) else {}
    return Outcome(
        counts=Counts(received=received, kept=len(windows), dropped=dropped),
        shards=shards,
        measures={"windows": len(made)},
    )


def _content_key(four: Sequence[ContrastWindow]) -> str:
    """The key of a shard: of its content alone, so that a larger set measures only what it adds to a smaller one."""
    digest = hashlib.sha256(b"contrast 1")
    for window in four:
        digest.update(f"\0{window.window_id}\0{window.domain}\0{window.half}\0{window.cuts}\0".encode())
        digest.update(window.ids.astype("<i4").tobytes())
    return digest.hexdigest()


def _drawn(store: Store, job: Job, config: ContrastConfig) -> set[str]:
    """The windows to draw on: the first of each document, of the `MOST_DOCUMENTS` first by hash in a domain's half."""
    excluded = set(config.exclude)
    pools: dict[tuple[str, str], list[tuple[int, str]]] = {}
    seen: set[str] = set()
    for shard in job.all("windows"):
        for batch in store.shard_batches(shard, rows=4096, columns=["window_id", "doc_id", "domain", "window_index"]):
            for row in batch.to_pylist():
                doc_id = row["doc_id"]
                if row["window_index"] or doc_id in excluded or doc_id in seen:
                    continue
                seen.add(doc_id)
                pool = pools.setdefault((row["domain"], half_of(config, doc_id)), [])
                pool.append((_hash(config.seed, "order", doc_id), row["window_id"]))
                if len(pool) > 2 * MOST_DOCUMENTS:
                    pool.sort()
                    del pool[MOST_DOCUMENTS:]
    return {window_id for pool in pools.values() for _, window_id in sorted(pool)[:MOST_DOCUMENTS]}


def _hash(seed: int, purpose: str, doc_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {doc_id}".encode()).digest()[:8], "big")


STAGE = Stage(name="contrast", version="1", compute=contrast, roles=("windows",))
