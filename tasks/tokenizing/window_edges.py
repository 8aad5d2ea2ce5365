"""The characters at which windows begin and end, from tokenizing no more than the chunks that their edges lie in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ladm.tasks.tokenizing.chunks import ChunkEncoder, Document


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a window begins or ends: before the token of this number in its chunk."""

    document: int
    chunk: int
    token: int


def edge_chars(edges: Iterable[Edge], texts: Sequence[str], encoder: ChunkEncoder) -> dict[Edge, tuple[int, int]]:
    """For each edge `EncodedChunk.chars_before` it, from tokenizing its chunk once more."""
    chars: dict[Edge, tuple[int, int]] = {}
    tokens_of: dict[tuple[int, int], list[int]] = {}
    for edge in edges:
        if edge.token == 0:  # where the chunk begins, whatever its tokens are
            start = Document(texts[edge.document]).start_of(edge.chunk)
            chars[edge] = start, start
        else:
            tokens_of.setdefault((edge.document, edge.chunk), []).append(edge.token)
    encoded = encoder.encode((Document(texts[number]), chunk) for number, chunk in tokens_of)
    for ((number, chunk), tokens), found in zip(tokens_of.items(), encoded, strict=True):
        chars |= {Edge(number, chunk, token): found.chars_before(token) for token in tokens}
    return chars
