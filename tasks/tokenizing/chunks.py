"""Tokenizes documents chunk by chunk, so that any part of one can be tokenized without the rest.

**Chunks.** A document is tokenized in chunks, and *its tokens are by definition those of its chunks in order*. The
chunks depend on the text alone, so a token is the same whether it was reached from the start, from the end or by
tokenizing everything. With P = `CHUNK_CHARS`, a text of n characters has max(1, n // P) chunks; chunk k > 0 begins
at the first spot of the best kind found among the characters kP … (k+1)P−1:

1. between a character that is not white space and a space;
2. between a letter or digit and any other white space;
3. after a single newline that stands between two characters that are not white space (the second not "/");
4. between a letter or digit and a mark of punctuation (no apostrophe);
5. failing all that (a run of one letter, of white space, of ideographs without punctuation) at kP itself.

At 1 the regular expressions of GPT-2, cl100k, o200k, Llama 3, Qwen and DeepSeek all begin a new pre-token, and
SentenceChunk vocabularies trained the usual way have no token that crosses. So the tokens are those of the whole
text. At 2 to 4 that holds for the byte-level families; at 5 it cannot, and a run without a single boundary in P
characters costs a token or so more every P characters. A chunk is always shorter than 2P characters, which bounds
what one pre-token can cost in time and memory.

**Context.** Tokenizers that put a "▁" before the text would do so before each chunk. Each chunk but the first is
therefore tokenized together with the two characters before it, whose tokens are then dropped. Where those two
characters do not come out as they do alone (a token crosses the cut), the chunk is tokenized by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from ladm.tasks.errors import AccountError
from ladm.tasks.tokenizing.word_cache import Words, words_of

CHUNK_CHARS = 4096
"""P: the grid on which chunks are cut, in characters. Part of what a document's tokens are: see above."""

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
    """A text with the tokens of those of its chunks that were tokenized so far.

    Attributes:
        text: The whole text.
        ids_of: Chunk number → its token ids.
    """

    text: str
    ids_of: dict[int, Ids] = field(default_factory=dict)

    @property
    def chunks(self) -> int:
        """How many chunks the text has."""
        # The last chunk takes the remainder: a remainder of a few characters may hold no good place to cut.
        return max(1, len(self.text) // CHUNK_CHARS)

    @property
    def missing(self) -> list[int]:
        """The chunks that are not tokenized yet, in order."""
        return [chunk for chunk in range(self.chunks) if chunk not in self.ids_of]

    def start_of(self, chunk: int) -> int:
        """The character at which a chunk begins (the text's end for the chunk after the last)."""
        if chunk >= self.chunks:
            return len(self.text)
        if chunk == 0:
            return 0
        low = chunk * CHUNK_CHARS
        for boundary in _BOUNDARIES:
            if match := boundary.search(self.text, low, low + CHUNK_CHARS):
                return match.end()
        return low

    def tokens(self, chunks: Iterable[int]) -> int:
        """Number of tokens in chunks that are tokenized."""
        return sum(len(self.ids_of[chunk]) for chunk in chunks)

    def chars(self, chunks: Iterable[int]) -> int:
        """Number of characters in chunks."""
        return sum(self.start_of(chunk + 1) - self.start_of(chunk) for chunk in chunks)

    def doc_tokens(self) -> tuple[int, bool]:
        """The tokens of the whole document, and whether that is exact.

        What is not tokenized is extrapolated by characters from the tokenized chunks that lie beyond the first gap.
        """
        tokens = self.tokens(self.ids_of)
        if len(self.ids_of) == self.chunks:
            return tokens, True
        beyond = [chunk for chunk in self.ids_of if chunk > self.missing[0]] or list(self.ids_of)
        missing = len(self.text) - self.chars(self.ids_of)
        return tokens + round(missing * self.tokens(beyond) / self.chars(beyond)), False


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A chunk as the tokenizer returned it, with its context.

    Attributes:
        document: The document.
        chunk: Number of the chunk.
        ids: The chunk's own token ids.
        encoding: Tokens of context and chunk together.
        dropped: How many of them, at the beginning, are the context's.
        origin: The text's character that the encoding's offsets count from.
    """

    document: Document
    chunk: int
    ids: Ids
    encoding: Encoding
    dropped: int
    origin: int

    def chars_before(self, token: int) -> tuple[int, int]:
        """Where the text before one of the chunk's tokens ends, and where the text from it on starts.

        The same character, unless it is split: then its bytes belong to both tokens, and the second figure is one
        less than the first. `token` may be the number of tokens: the chunk's end.
        """
        start = self.document.start_of(self.chunk)
        if token == 0:
            return start, start
        if token == len(self.encoding) - self.dropped:
            end = self.document.start_of(self.chunk + 1)
            return end, end
        before = self.encoding.token_to_chars(self.dropped + token - 1)
        after = self.encoding.token_to_chars(self.dropped + token)
        assert before is not None and after is not None, "every token of a text has offsets"  # noqa: PT018
        # Some tokenizers leave white space out of offsets: where the token before ends is the surer mark.
        end = self.origin + before[1]
        return end, min(end, self.origin + after[0])


class ChunkEncoder:
    """Tokenizes chunks in batches of bounded size, on all cores, each behind its context."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.truncation is not None:
            raise AccountError("call no_truncation() on the tokenizer: every token is needed")
        if tokenizer.padding is not None:
            raise AccountError("call no_padding() on the tokenizer: padding is not part of a text")
        self.tokenizer = tokenizer
        self.words = words_of(tokenizer)
        self.bytes_of_token = self.words.bytes_of_token if self.words else None
        """How many bytes of the text as it is written each token id stands for; None where that cannot be told."""
        self.ids_of_context: dict[str, list[int]] = {"": []}

    def fill(self, chunks: Iterable[tuple[Document, int]]) -> None:
        """Puts the token ids of each chunk into its document, by words (`word_cache.py`) where that gives the same."""
        others = self._fill_by_words(chunks) if self.words else chunks
        for encoded in self._encode(others, self.tokenizer.encode_batch_fast):  # fast: without offsets
            encoded.document.ids_of[encoded.chunk] = encoded.ids

    def _fill_by_words(self, chunks: Iterable[tuple[Document, int]]) -> Iterator[tuple[Document, int]]:
        """Fills chunks that begin where a word does, and yields the others, whose context may count."""
        assert self.words is not None
        batch: list[tuple[Document, int]] = []
        texts: list[str] = []
        chars = 0
        for document, chunk in chunks:
            start, text = document.start_of(chunk), document.text
            if start and not (text[start] == " " and not text[start - 1].isspace()):
                yield document, chunk
                continue
            texts.append(text[start : document.start_of(chunk + 1)])
            batch.append((document, chunk))
            chars += len(texts[-1])
            if chars >= _BATCH_CHARS:
                self._fill_batch(batch, texts, self.words)
                batch, texts, chars = [], [], 0
        self._fill_batch(batch, texts, self.words)

    @staticmethod
    def _fill_batch(batch: list[tuple[Document, int]], texts: list[str], words: Words) -> None:
        for (document, chunk), ids in zip(batch, words.ids(texts), strict=True):
            document.ids_of[chunk] = ids

    def encode(self, chunks: Iterable[tuple[Document, int]]) -> Iterator[EncodedChunk]:
        """Yields each chunk tokenized, in the order given. Keep none: they are 200 bytes a token."""
        return self._encode(chunks, self.tokenizer.encode_batch)

    def _encode(self, chunks: Iterable[tuple[Document, int]], encode_batch: EncodeBatch) -> Iterator[EncodedChunk]:
        batch: list[tuple[Document, int, int]] = []  # with where the chunk begins
        inputs: list[str] = []
        chars = 0
        for document, chunk in chunks:
            start = document.start_of(chunk)
            inputs.append(document.text[max(0, start - _CONTEXT_CHARS) : document.start_of(chunk + 1)])
            batch.append((document, chunk, start))
            chars += len(inputs[-1])
            if chars >= _BATCH_CHARS:
                yield from self._encode_batch(batch, inputs, encode_batch)
                batch, inputs, chars = [], [], 0
        yield from self._encode_batch(batch, inputs, encode_batch)

    def _encode_batch(
        self, batch: list[tuple[Document, int, int]], inputs: list[str], encode_batch: EncodeBatch
    ) -> Iterator[EncodedChunk]:
        encodings = encode_batch(inputs, add_special_tokens=False)
        encodings.reverse()
        for (document, chunk, start), text in zip(batch, inputs, strict=True):
            encoding = encodings.pop()  # freed as soon as the caller has taken what it needs
            origin = max(0, start - _CONTEXT_CHARS)
            context = self._context_ids(text[: start - origin])
            dropped = len(context)
            ids = encoding.ids  # a new list each time
            if ids[:dropped] != context:
                encoding = self.tokenizer.encode(text[start - origin :], add_special_tokens=False)
                ids, origin, dropped = encoding.ids, start, 0
            yield EncodedChunk(document, chunk, np.array(ids[dropped:], dtype=np.int32), encoding, dropped, origin)

    def _context_ids(self, context: str) -> list[int]:
        if context not in self.ids_of_context:
            self.ids_of_context[context] = self.tokenizer.encode(context, add_special_tokens=False).ids
        return self.ids_of_context[context]
