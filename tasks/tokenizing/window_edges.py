"""The characters at which windows begin and end, from tokenizing no more than the chunks that their edges lie in.

Where each token of a tokenizer stands for so many bytes of the text as it is written, nothing is tokenized for it: the
bytes of the tokens before an edge are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.tasks.tokenizing.chunks import ChunkEncoder, Document


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a window begins or ends: before the token of this number in its chunk."""

    document: int
    chunk: int
    token: int


def edge_chars(
    edges: Iterable[Edge], documents: Mapping[int, Document], encoder: ChunkEncoder
) -> dict[Edge, tuple[int, int]]:
    """For each edge `EncodedChunk.chars_before` it.

    Args:
        edges: Of the windows.
        documents: Number → the document, with the tokens of the chunks that the edges lie in.
        encoder: What tokenized them.
    """
    chars: dict[Edge, tuple[int, int]] = {}
    tokens_of: dict[tuple[int, int], list[int]] = {}
    for edge in edges:
        if edge.token == 0:  # where the chunk begins, whatever its tokens are
            start = documents[edge.document].start_of(edge.chunk)
            chars[edge] = start, start
        else:
            tokens_of.setdefault((edge.document, edge.chunk), []).append(edge.token)
    uncounted: dict[tuple[int, int], list[int]] = {}
    for (number, chunk), tokens in tokens_of.items():
        counted = None
        if encoder.bytes_of_token is not None:
            counted = counted_chars(documents[number], chunk, tokens, encoder.bytes_of_token)
        if counted is None:
            uncounted[number, chunk] = tokens
        else:
            chars |= {Edge(number, chunk, token): found for token, found in zip(tokens, counted, strict=True)}
    encoded = encoder.encode((documents[number], chunk) for number, chunk in uncounted)
    for ((number, chunk), tokens), found in zip(uncounted.items(), encoded, strict=True):
        chars |= {Edge(number, chunk, token): found.chars_before(token) for token in tokens}
    return chars


def counted_chars(
    document: Document, chunk: int, tokens: Sequence[int], bytes_of_token: npt.NDArray[np.int64]
) -> list[tuple[int, int]] | None:
    """`EncodedChunk.chars_before` some tokens of a chunk, from its token ids.

    Args:
        document: Its `ids_of` has the chunk.
        chunk: Number of the chunk.
        tokens: Numbers of tokens within the chunk; the number of its tokens is its end.
        bytes_of_token: How many bytes of UTF-8 each token id stands for.

    Returns:
        None where the tokens do not stand for the chunk's bytes one for one.
    """
    start, end = document.start_of(chunk), document.start_of(chunk + 1)
    text = document.text[start:end]
    raw = text.encode()
    ends_T = np.cumsum(bytes_of_token[document.ids_of[chunk]])
    if not len(ends_T) or ends_T[-1] != len(raw):
        return None
    cuts = [int(ends_T[token - 1]) if token else 0 for token in tokens]
    if len(raw) == len(text):
        return [(start + cut, start + cut) for cut in cuts]
    return [_chars_before(raw, cut, start) for cut in cuts]


def _chars_before(raw: bytes, cut: int, start: int) -> tuple[int, int]:
    """Where the text before a cut ends, and where the text from it on starts; one less where a character is split."""
    begun = start + len(raw[:cut].decode(errors="ignore"))
    is_split = cut < len(raw) and raw[cut] & 0xC0 == 0x80  # a byte that goes on with a character
    return (begun + 1, begun) if is_split else (begun, begun)
