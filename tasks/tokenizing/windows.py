"""Cuts windows of exactly L tokens from documents, and tokenizes only as far into a document as the windows need.

A document's tokens are those of its chunks (`chunks.py`), which do not depend on how far it is tokenized; so a
window does not either.

**Characters.** `Window.char_end` is where the window's last token ends, or the end of its chunk when no token of the
chunk follows. `char_start` is where the token before it ends, or the start of its chunk. So the consecutive windows
of `take: all` tile the text, `char_end` of one being `char_start` of the next, with two exceptions: a character whose
bytes fall on both sides belongs to both (`char_start` is one less), and text of which the tokenizer makes no token at
all may lie between two windows.

**Middle.** `take: front-middle-back` gives the first L tokens; the last L if there are 2L; and if there are 3L, the L
tokens from clip(m − L // 2, L, n − 2L), where n is the number of tokens and m is the token at the middle character
(n_chars // 2, interpolated by characters within its chunk). When the first, middle and last third of the chunks each
hold what their window needs, only so much of each is tokenized; otherwise everything is, by the same rule and with
the same result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from ladm.tasks.errors import AccountError
from ladm.tasks.settings import Settings
from ladm.tasks.tokenizing.chunks import CHUNK_CHARS, ChunkEncoder, Document, Ids
from ladm.tasks.tokenizing.window_edges import Edge, edge_chars

# Characters a token, taken for a document of which nothing is known. Low, so that little is tokenized in vain;
# the next round goes by the document's own figure.
_FIRST_GUESS = 1.5


class WindowConfig(Settings):
    """Which windows a document gives (the `window:` section)."""

    length: int = Field(default=32768, ge=2)
    """Tokens in a window. A shorter document has no window and no score. Scores of different lengths cannot be
    compared."""
    take: Literal["first", "all", "front-middle-back"] = "first"
    """Which windows of a document are scored. `first`: the first one. `all`: one after the other, without the shorter
    rest at the end. `front-middle-back`: up to three that do not overlap."""
    count: Literal["estimate", "exact"] = "estimate"
    """How the tokens of a document are counted. `exact`: tokenize all of it. `estimate`: tokenize what its windows need
    and extrapolate."""


@dataclass(frozen=True, slots=True)
class Window:
    """L consecutive tokens of one document.

    Attributes:
        index: Number of the window within its document, from 0, in the order of the text.
        input_ids: The token ids, shape [L], without special tokens.
        char_start: First character of the window's text, `text[char_start:char_end]`.
        char_end: The character after its last.
    """

    index: int
    input_ids: Ids
    char_start: int
    char_end: int


@dataclass(frozen=True, slots=True)
class CutDocument:
    """What one document gave.

    Attributes:
        windows: Its windows, in the order of the text; none if it has fewer than L tokens.
        doc_tokens: Tokens of the whole document.
        doc_tokens_exact: False if `doc_tokens` is extrapolated from chunks of the text, by characters.
    """

    windows: list[Window]
    doc_tokens: int
    doc_tokens_exact: bool


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a window lies: `offset` tokens into a run of tokenized chunks."""

    chunks: range
    offset: int


@dataclass(frozen=True, slots=True)
class _Draft:
    """A window whose characters are not known yet."""

    ids: Ids
    first: Edge
    last: Edge


def cut_documents(texts: Sequence[str], tokenizer: Tokenizer, config: WindowConfig) -> list[CutDocument]:
    """Cuts the windows that `config` asks for from each text.

    Works in rounds over all texts: each round tokenizes, on all cores, the chunks that the windows still miss, as
    many as the document's own characters a token suggest, and at most four times what is already known.

    Args:
        texts: The documents. A result depends on its own text only.
        tokenizer: A fast tokenizer without truncation and padding. Whether the names of special tokens in a text
            are read as plain text is the tokenizer's `encode_special_tokens`.
        config: Length, kind and count.

    Returns:
        One `CutDocument` a text, in the same order.
    """
    encoder = ChunkEncoder(tokenizer)
    open_documents = {number: Document(text) for number, text in enumerate(texts)}
    documents = dict(open_documents)
    drafts: dict[int, tuple[list[_Draft], int, bool]] = {}
    while open_documents:
        wanted = {number: _wanted(document, config) for number, document in open_documents.items()}
        for number in [number for number, chunks in wanted.items() if not chunks]:
            document = open_documents.pop(number)
            spans = _spans(document, config)
            cut = [_draft(number, document, span, config.length) for span in spans]
            drafts[number] = (cut, *document.doc_tokens())
        encoder.fill((document, chunk) for number, document in open_documents.items() for chunk in wanted[number])

    # At most the chunks at the windows' edges are tokenized again for character offsets: reading the offsets of every
    # token into Python would cost a third more time than tokenizing alone, on all of the text.
    edges = {edge for cut, _, _ in drafts.values() for draft in cut for edge in (draft.first, draft.last)}
    chars = edge_chars(edges, documents, encoder)
    return [
        CutDocument(
            [Window(index, draft.ids, chars[draft.first][1], chars[draft.last][0]) for index, draft in enumerate(cut)],
            doc_tokens,
            exact,
        )
        for cut, doc_tokens, exact in (drafts[number] for number in range(len(texts)))
    ]


def _wanted(document: Document, config: WindowConfig) -> list[int]:
    """The chunks to tokenize next; none when the windows and the count can be told."""
    missing = document.missing
    if not missing or config.take == "all" or config.count == "exact":
        return missing
    if config.take == "first":
        return _more(document, range(document.chunks), config.length) or _unseen_samples(document)
    front, before, after, back = _stretches(document)
    half = config.length // 2
    wanted: set[int] = set()
    for stretch, needed in ((front, config.length), (back, config.length)):
        wanted.update(_more(document, stretch, needed))
    # The middle token lies inside the first chunk of `after`; what of it comes before counts for the left side.
    centre = document.ids_of.get(after[0])
    inside = 0 if centre is None else _middle_of(document, after[0], len(centre))
    wanted.update(_more(document, before, half - inside))
    wanted.update(_more(document, after, config.length - half + inside))
    if not wanted and _thirds(document, config.length) is None:
        return missing
    return sorted(wanted)


def _unseen_samples(document: Document) -> list[int]:
    """Two chunks further on, by which the part that no window needs is counted: beginnings are often not typical."""
    samples = (document.chunks // 3, 2 * document.chunks // 3)
    return [chunk for chunk in sorted(set(samples)) if chunk not in document.ids_of]


def _more(document: Document, stretch: range, needed: int) -> list[int]:
    """The chunks to tokenize next, in the order of `stretch`, to have `needed` tokens in it; none if it has them.

    None, too, if the stretch is exhausted.
    """
    known = 0
    tokens = 0
    while known < len(stretch) and stretch[known] in document.ids_of and tokens < needed:
        tokens += len(document.ids_of[stretch[known]])
        known += 1
    if tokens >= needed:
        return []
    if known == 0:
        count = math.ceil(needed * _FIRST_GUESS / CHUNK_CHARS)
    else:
        # No token in all that is known (white space that the tokenizer drops): the cap decides.
        chunks_a_token = known / tokens if tokens else math.inf
        count = math.ceil(min((needed - tokens) * chunks_a_token * 1.02, 3 * known))
    return [chunk for chunk in stretch[known : known + count] if chunk not in document.ids_of]


def _spans(document: Document, config: WindowConfig) -> list[_Span]:
    """Where the windows lie, once no chunk is wanted."""
    length = config.length
    complete = len(document.ids_of) == document.chunks
    if config.take == "front-middle-back" and not complete:
        spans = _thirds(document, length)
        if spans is None:
            raise AccountError("a document without its three windows must be tokenized whole")
        return spans
    if not complete and config.take == "first":
        return [_Span(range(document.missing[0]), 0)]
    whole = range(document.chunks)
    tokens = document.tokens(whole)
    if config.take == "first":
        offsets = [0] if tokens >= length else []
    elif config.take == "all":
        offsets = [number * length for number in range(tokens // length)]
    else:
        offsets = _front_middle_back(document, tokens, length)
    return [_Span(whole, offset) for offset in offsets]


def _stretches(document: Document) -> tuple[range, range, range, range]:
    """Front, left of the middle, right of the middle, back: chunks in disjoint thirds, each from where it grows."""
    third = document.chunks // 3
    centre = _middle_chunk(document)
    return (
        range(third),
        range(centre - 1, third - 1, -1),
        range(centre, document.chunks - third),
        range(document.chunks - 1, document.chunks - third - 1, -1),
    )


def _thirds(document: Document, length: int) -> list[_Span] | None:
    """The three windows of a document whose thirds each hold theirs; None if one does not (yet)."""
    front, before, after, back = (_known(document, stretch) for stretch in _stretches(document))
    if not after or _middle_chunk(document) < document.chunks // 3:
        return None
    back = range(document.chunks - len(back), document.chunks)
    middle = range(after[0] - len(before), after[-1] + 1)
    centre = document.tokens(before) + _middle_of(document, after[0], len(document.ids_of[after[0]]))
    start = centre - length // 2
    enough = document.tokens(front) >= length and document.tokens(back) >= length
    if not enough or start < 0 or start + length > document.tokens(middle):
        return None
    return [_Span(front, 0), _Span(middle, start), _Span(back, document.tokens(back) - length)]


def _known(document: Document, stretch: range) -> range:
    """The tokenized chunks at the beginning of a stretch."""
    missing = (number for number, chunk in enumerate(stretch) if chunk not in document.ids_of)
    return stretch[: next(missing, len(stretch))]


def _front_middle_back(document: Document, tokens: int, length: int) -> list[int]:
    """First tokens of the windows of a document that is tokenized whole."""
    if tokens < 2 * length:
        return [0] if tokens >= length else []
    if tokens < 3 * length:
        return [0, tokens - length]
    chunk = _middle_chunk(document)
    centre = document.tokens(range(chunk)) + _middle_of(document, chunk, len(document.ids_of[chunk]))
    return [0, min(max(centre - length // 2, length), tokens - 2 * length), tokens - length]


def _middle_chunk(document: Document) -> int:
    """The chunk that holds the middle character."""
    middle = len(document.text) // 2
    chunk = min(middle // CHUNK_CHARS, document.chunks - 1)
    return chunk - 1 if document.start_of(chunk) > middle else chunk


def _middle_of(document: Document, chunk: int, tokens: int) -> int:
    """How many of a chunk's tokens come before the text's middle character, interpolated by characters."""
    start = document.start_of(chunk)
    chars = document.start_of(chunk + 1) - start
    return tokens * (len(document.text) // 2 - start) // chars if chars else 0


def _draft(number: int, document: Document, span: _Span, length: int) -> _Draft:
    """The window at a place, with the two cuts that are its edges."""
    parts: list[Ids] = []
    edges: list[Edge] = []
    position = 0
    for chunk in span.chunks:
        ids = document.ids_of[chunk]
        low = max(0, span.offset - position)
        high = min(len(ids), span.offset + length - position)
        if low < high:
            parts.append(ids[low:high])
            edges += [Edge(number, chunk, low), Edge(number, chunk, high)]
        position += len(ids)
        if position >= span.offset + length:
            break
    window = np.concatenate(parts)
    if window.shape != (length,):
        raise AccountError(f"a window of {len(window)} tokens instead of {length}")
    return _Draft(window, edges[0], edges[-1])
