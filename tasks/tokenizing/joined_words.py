"""Tokenizes many different words in a few long texts, which takes half the time of giving each to the tokenizer alone.

Words are joined where a byte-level tokenizer is certain to cut (kinds 1 and 2 of `word_cache.py`): those that begin
with a space and end with no white space behind one another, and those that begin with other ASCII white space or a
mark and end with an ASCII letter or digit. Each token of such a tokenizer stands for so many bytes, so that the words'
own tokens are found again by counting. Should a token reach over a word's edge after all, the words are not joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

TEXT_BYTES = 4096
"""Of a text of joined words, about: enough texts for all cores."""
_FEWEST = 64
"""Words to join; of fewer, none is gained."""
_BEGINNINGS = frozenset('!"#$%&()*+,-./:;<=>?@[\\]^`{|}~\t\n\r\x0b\x0c')
_ENDS = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class JoinedWords:
    """A byte-level tokenizer, for many words at once.

    Args:
        tokenizer: Of the kind that `word_cache.py` is for.
        bytes_of_token: How many bytes of text each token id stands for.
        ascii_only: Join no other words; for a tokenizer whose normalizer may change the bytes of others.
    """

    def __init__(self, tokenizer: Any, bytes_of_token: npt.NDArray[np.int64], ascii_only: bool) -> None:
        self._tokenizer = tokenizer
        self._bytes_of_token = bytes_of_token
        self._ascii_only = ascii_only

    def tokens(self, words: Sequence[str]) -> dict[str, bytes]:
        """The token ids, as int32, of those of some different words that can be joined."""
        kinds: tuple[list[str], list[str]] = ([], [])
        for word in words:
            if word[0] == " ":
                if not word[-1].isspace():
                    kinds[0].append(word)
            elif word[0] in _BEGINNINGS and word[-1] in _ENDS:
                kinds[1].append(word)
        found: dict[str, bytes] = {}
        for kind in kinds:
            joined = list(filter(str.isascii, kind)) if self._ascii_only else kind
            if len(joined) >= _FEWEST and (tokens := self._in_long_texts(joined)):
                found.update(zip(joined, tokens, strict=True))
        return found

    def _in_long_texts(self, words: list[str]) -> list[bytes] | None:
        ends_W = np.cumsum([len(word.encode()) for word in words])
        texts = list(_texts(words, ends_W))
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids_T = np.concatenate([np.array(encoding.ids, dtype=np.int32) for encoding in encodings])
        ends_T = np.cumsum(self._bytes_of_token[ids_T])
        if not len(ends_T) or ends_T[-1] != ends_W[-1]:
            return None
        last_W = np.searchsorted(ends_T, ends_W)
        if not np.array_equal(ends_T[last_W], ends_W):
            return None
        raw = ids_T.tobytes()
        return [raw[start:end] for start, end in pairwise([0, *(4 * (last_W + 1)).tolist()])]


def _texts(words: list[str], ends_W: npt.NDArray[np.int64]) -> Iterator[str]:
    cuts = np.searchsorted(ends_W, np.arange(TEXT_BYTES, ends_W[-1], TEXT_BYTES)) + 1
    for start, end in pairwise([0, *np.unique(cuts).tolist(), len(words)]):
        if start < end:
            yield "".join(words[start:end])


def bytes_of_token(tokenizer: Any, form: dict[str, Any]) -> npt.NDArray[np.int64] | None:
    """How many bytes of text each token id stands for; None if a name in a text may be read as a token by itself.

    Args:
        tokenizer: Byte-level: a token's name has a character a byte.
        form: Its JSON form.
    """
    added = form["added_tokens"]
    if not all(token["special"] for token in added) or (added and not tokenizer.encode_special_tokens):
        return None
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    sizes = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True) + max(vocabulary.values(), default=0), np.int64)
    for name, number in vocabulary.items():
        sizes[number] = len(name)
    return sizes
