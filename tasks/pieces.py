"""Tokenizes documents piece by piece, so that any part of one can be tokenized without the rest.

**Pieces.** A document is tokenized in pieces, and *its tokens are by definition those of its pieces in order*. The
pieces depend on the text alone, so a token is the same whether it was reached from the start, from the end or by
tokenizing everything. With P = `PIECE_CHARS`, a text of n characters has max(1, n // P) pieces; piece k > 0 begins
at the first spot of the best kind found among the characters kP … (k+1)P−1:

1. between a character that is not white space and a space;
2. between a letter or digit and any other white space;
3. after a single newline that stands between two characters that are not white space (the second not "/");
4. between a letter or digit and a mark of punctuation (no apostrophe);
5. failing all that (a run of one letter, of white space, of ideographs without punctuation) at kP itself.

At 1 the regular expressions of GPT-2, cl100k, o200k, Llama 3, Qwen and DeepSeek all begin a new pre-token, and
SentencePiece vocabularies trained the usual way have no token that crosses. So the tokens are those of the whole
text. At 2 to 4 that holds for the byte-level families; at 5 it cannot, and a run without a single boundary in P
characters costs a token or so more every P characters. A piece is always shorter than 2P characters, which bounds
what one pre-token can cost in time and memory.

**Context.** Tokenizers that put a "▁" before the text would do so before each piece. Each piece but the first is
therefore tokenized together with the two characters before it, whose tokens are then dropped. Where those two
characters do not come out as they do alone (a token crosses the cut), the piece is tokenized by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from tasks.words import Words, words_of

PIECE_CHARS = 4096
"""P: the grid on which pieces are cut, in characters. Part of what a document's tokens are: see above."""

Ids = npt.NDArray[np.int32]
EncodeBatch = Callable[..., list[Encoding]]

_CONTEXT_CHARS = 2
# Encodings take some 200 bytes a token until they are reduced to ids: this bounds them to about 100 MB.
_BATCH_CHARS = 1 << 20
_PUNCTUATION = re.escape("""!"#$%&()*+,-./:;<=>?@[\\]^`{|}~、。，．！？；：…（）「」『』《》〈〉【】・～""")
_BOUNDARIES = tuple(
    re.compile(pattern) for pattern in (r"\S(?= )", r"[^\W_](?=\s)", r"\S\n(?=[^\s/])", rf"[^\W_](?=[{_PUNCTUATION}])")
)


@dataclass(slots=True)
class Document:
    """A text with the tokens of those of its pieces that were tokenized so far.

    Attributes:
        text: The whole text.
        ids_of: Piece number → its token ids.
    """

    text: str
    ids_of: dict[int, Ids] = field(default_factory=dict)

    @property
    def pieces(self) -> int:
        """How many pieces the text has."""
        # The last piece takes the remainder: a remainder of a few characters may hold no good place to cut.
        return max(1, len(self.text) // PIECE_CHARS)

    @property
    def missing(self) -> list[int]:
        """The pieces that are not tokenized yet, in order."""
        return [piece for piece in range(self.pieces) if piece not in self.ids_of]

    def start_of(self, piece: int) -> int:
        """The character at which a piece begins (the text's end for the piece after the last)."""
        if piece >= self.pieces:
            return len(self.text)
        if piece == 0:
            return 0
        low = piece * PIECE_CHARS
        for boundary in _BOUNDARIES:
            if match := boundary.search(self.text, low, low + PIECE_CHARS):
                return match.end()
        return low

    def tokens(self, pieces: Iterable[int]) -> int:
        """Number of tokens in pieces that are tokenized."""
        return sum(len(self.ids_of[piece]) for piece in pieces)


@dataclass(frozen=True, slots=True)
class EncodedPiece:
    """A piece as the tokenizer returned it, with its context.

    Attributes:
        document: The document.
        piece: Number of the piece.
        ids: The piece's own token ids.
        encoding: Tokens of context and piece together.
        dropped: How many of them, at the beginning, are the context's.
        origin: The text's character that the encoding's offsets count from.
    """

    document: Document
    piece: int
    ids: Ids
    encoding: Encoding
    dropped: int
    origin: int

    def chars_before(self, token: int) -> tuple[int, int]:
        """Where the text before one of the piece's tokens ends, and where the text from it on starts.

        The same character, unless it is split: then its bytes belong to both tokens, and the second figure is one
        less than the first. `token` may be the number of tokens: the piece's end.
        """
        start = self.document.start_of(self.piece)
        if token == 0:
            return start, start
        if token == len(self.encoding) - self.dropped:
            end = self.document.start_of(self.piece + 1)
            return end, end
        before = self.encoding.token_to_chars(self.dropped + token - 1)
        after = self.encoding.token_to_chars(self.dropped + token)
        assert before is not None and after is not None, "every token of a text has offsets"  # noqa: PT018
        # Some tokenizers leave white space out of offsets: where the token before ends is the surer mark.
        end = self.origin + before[1]
        return end, min(end, self.origin + after[0])


class PieceEncoder:
    """Tokenizes pieces in batches of bounded size, on all cores, each behind its context."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.truncation is None, "call no_truncation() on the tokenizer: every token is needed"
        assert tokenizer.padding is None, "call no_padding() on the tokenizer: padding is not part of a text"
        self.tokenizer = tokenizer
        self.words = words_of(tokenizer)
        self.ids_of_context: dict[str, list[int]] = {"": []}

    def fill(self, pieces: Iterable[tuple[Document, int]]) -> None:
        """Puts the token ids of each piece into its document, by words (`words.py`) where that gives the same."""
        others = self._fill_by_words(pieces) if self.words else pieces
        for encoded in self._encode(others, self.tokenizer.encode_batch_fast):  # fast: without offsets
            encoded.document.ids_of[encoded.piece] = encoded.ids

    def _fill_by_words(self, pieces: Iterable[tuple[Document, int]]) -> Iterator[tuple[Document, int]]:
        """Fills pieces that begin where a word does, and yields the others, whose context may count."""
        assert self.words is not None
        batch: list[tuple[Document, int]] = []
        texts: list[str] = []
        chars = 0
        for document, piece in pieces:
            start, text = document.start_of(piece), document.text
            if start and not (text[start] == " " and not text[start - 1].isspace()):
                yield document, piece
                continue
            texts.append(text[start : document.start_of(piece + 1)])
            batch.append((document, piece))
            chars += len(texts[-1])
            if chars >= _BATCH_CHARS:
                self._fill_batch(batch, texts, self.words)
                batch, texts, chars = [], [], 0
        self._fill_batch(batch, texts, self.words)

    @staticmethod
    def _fill_batch(batch: list[tuple[Document, int]], texts: list[str], words: Words) -> None:
        for (document, piece), ids in zip(batch, words.ids(texts), strict=True):
            document.ids_of[piece] = ids

    def encode(self, pieces: Iterable[tuple[Document, int]]) -> Iterator[EncodedPiece]:
        """Yields each piece tokenized, in the order given. Keep none: they are 200 bytes a token."""
        return self._encode(pieces, self.tokenizer.encode_batch)

    def _encode(self, pieces: Iterable[tuple[Document, int]], encode_batch: EncodeBatch) -> Iterator[EncodedPiece]:
        batch: list[tuple[Document, int, int]] = []  # with where the piece begins
        inputs: list[str] = []
        chars = 0
        for document, piece in pieces:
            start = document.start_of(piece)
            inputs.append(document.text[max(0, start - _CONTEXT_CHARS) : document.start_of(piece + 1)])
            batch.append((document, piece, start))
            chars += len(inputs[-1])
            if chars >= _BATCH_CHARS:
                yield from self._encode_batch(batch, inputs, encode_batch)
                batch, inputs, chars = [], [], 0
        yield from self._encode_batch(batch, inputs, encode_batch)

    def _encode_batch(
        self, batch: list[tuple[Document, int, int]], inputs: list[str], encode_batch: EncodeBatch
    ) -> Iterator[EncodedPiece]:
        encodings = encode_batch(inputs, add_special_tokens=False)
        encodings.reverse()
        for (document, piece, start), text in zip(batch, inputs, strict=True):
            encoding = encodings.pop()  # freed as soon as the caller has taken what it needs
            origin = max(0, start - _CONTEXT_CHARS)
            context = self._context_ids(text[: start - origin])
            dropped = len(context)
            ids = encoding.ids  # a new list each time
            if ids[:dropped] != context:
                encoding = self.tokenizer.encode(text[start - origin :], add_special_tokens=False)
                ids, origin, dropped = encoding.ids, start, 0
            yield EncodedPiece(document, piece, np.array(ids[dropped:], dtype=np.int32), encoding, dropped, origin)

    def _context_ids(self, context: str) -> list[int]:
        if context not in self.ids_of_context:
            self.ids_of_context[context] = self.tokenizer.encode(context, add_special_tokens=False).ids
        return self.ids_of_context[context]
