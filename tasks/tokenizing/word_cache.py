"""Tokenizes text by its words: each distinct one once, wherever it stands.

A byte-level tokenizer first cuts a text at fixed places (its regular expression) and then looks at each part by itself,
so a part has the same tokens wherever it stands; most parts of a text are words that came before. Between the places
that are certain, the first three kinds below, lies a *word*, which may be more than the tokenizer's own part:

1. between a character that is not white space and a space;
2. between an ASCII letter or digit and other ASCII white space, or a mark of ASCII punctuation (no apostrophe, no `_`);
3. after a single newline that stands between two characters that are not white space (the second not "/").

These are kinds 1 to 4 of `chunks.py`, less what could not be told from single bytes. Finding them, and the words that
are alike, is vectorised over the bytes of the text; only words not met before go to the tokenizer, most of them joined
to long texts (`joined_words.py`).

It is done for tokenizers that are known to work so: byte-pair encoding, no normalizer but NFC, a pre-tokenizer made of
regular expressions, digits and byte level, nothing put before a text. For all others `words_of` answers None.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from ladm.tasks.tokenizing.joined_words import JoinedWords, bytes_of_token

Ids = npt.NDArray[np.int32]

REMEMBERED_WORDS = 1 << 18
"""Words kept with their tokens; some 60 MB. When there are more, all are forgotten and met anew."""
_LONGEST_REMEMBERED = 64

_PARTS = {"Sequence", "Split", "ByteLevel", "Digits"}
_PROBE = (
    "It's 1,234.5 o'clock -- “naïve” café\n\tif (x_1 != y2): return  x[0] // 7\r\n\nCAN'T we'll;\n/path/to.txt "
    "日本語、テスト。 e\u0301a\u00a0b\u3000c   d\n   e <|im_end|> http://a.b/c?d=e&f #1 \U0001f642! end \n"
)

# Classes of bytes: 0 letter or digit, 1 space, 2 other white space, 3 punctuation that ends a word, 4 other ASCII that
# is no white space, 5 a byte of a longer character.
_CLASS = np.full(256, 4, np.uint8)
_CLASS[[byte for byte in range(128) if chr(byte).isalnum()]] = 0
_CLASS[ord(" ")] = 1
_CLASS[[byte for byte in range(128) if chr(byte).isspace() and byte != ord(" ")]] = 2
_CLASS[list(b'!"#$%&()*+,-./:;<=>?@[\\]^`{|}~')] = 3
_CLASS[128:] = 5
_ALNUM, _SPACE, _WHITE, _MARK, _LONG = 0, 1, 2, 3, 5


class Words:
    """The words that one tokenizer has met in this process, with their tokens."""

    def __init__(
        self,
        tokenizer: Any,
        joined: JoinedWords | None = None,
        bytes_of_token: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.bytes_of_token = bytes_of_token
        """How many bytes of a text each token id stands for; None where its offsets are not counted so."""
        self._tokenizer = tokenizer
        self._joined = joined
        self._known: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """The token ids of each text, as the tokenizer gives them for the whole text."""
        raw = [text.encode() for text in texts]
        data = b"".join(raw)
        if not data:
            return [np.empty(0, np.int32) for _ in texts]
        sizes = np.array([len(one) for one in raw], np.int64)
        text_starts = np.cumsum(sizes) - sizes
        begins_N = begins_word(np.frombuffer(data, np.uint8))
        begins_N[text_starts[sizes > 0]] = True
        starts = np.flatnonzero(begins_N).astype(np.int32)
        offsets = pa.py_buffer(np.append(starts, np.int32(len(data))).tobytes())
        words = pa.StringArray.from_buffers(len(starts), offsets, pa.py_buffer(data)).dictionary_encode()
        tokens = self._tokens(words.dictionary.to_pylist())
        sizes_U = np.fromiter(map(len, tokens), np.int64, len(tokens)) // 4
        starts_U = np.cumsum(sizes_U) - sizes_U
        word_W = words.indices.to_numpy()
        sizes_W = sizes_U[word_W]
        ends_W = np.cumsum(sizes_W)
        places = np.repeat(starts_U[word_W] - (ends_W - sizes_W), sizes_W) + np.arange(ends_W[-1])
        ids = np.frombuffer(b"".join(tokens), np.int32)[places]
        # The first word of each text, and so its first token; an empty text begins where the next one does.
        first_words = np.searchsorted(starts, text_starts)
        first_tokens = np.append(0, ends_W)[first_words]
        return np.split(ids, first_tokens[1:])

    def _tokens(self, words: list[str]) -> list[bytes]:
        """The token ids of distinct words, as int32."""
        tokens: list[Any] = list(map(self._known.get, words))
        places = [place for place, known in enumerate(tokens) if known is None]
        new = [words[place] for place in places]
        met: dict[str, bytes] = {}
        if new and self._joined:
            met = self._joined.tokens(new)
        if len(met) < len(new):
            alone = [word for word in new if word not in met]
            encodings = self._tokenizer.encode_batch_fast(alone, add_special_tokens=False)
            # For a handful of numbers `array` is much faster than numpy; its "i" has 32 bits wherever torch runs.
            met |= {word: array("i", encoding.ids).tobytes() for word, encoding in zip(alone, encodings, strict=True)}
        for place, word in zip(places, new, strict=True):
            tokens[place] = met[word]
        with self._lock:
            if len(self._known) + len(met) > REMEMBERED_WORDS:
                self._known = {}  # a new one: another thread may be looking things up in the old one
            self._known |= {word: ids for word, ids in met.items() if len(word) <= _LONGEST_REMEMBERED}
        return tokens


def begins_word(bytes_N: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which of a text's UTF-8 bytes begin a word; the first is not told."""
    class_N = _CLASS[bytes_N]
    before, here = class_N[:-1], class_N[1:]
    ends_word = before == _ALNUM
    # What a longer character is cannot be seen in its last byte; of those that are white space two bytes are telling.
    lead = np.append(np.uint8(0), bytes_N[:-2])[: len(before)]
    may_be_white = (before == _LONG) & np.isin(lead, (0xC2, 0x80, 0x81, 0x9A))
    visible = (before != _SPACE) & (before != _WHITE) & ~may_be_white
    starts = (here == _SPACE) & visible
    starts |= ends_word & ((here == _WHITE) | (here == _MARK))
    if len(bytes_N) > 2:
        # A longer character may be white space: only those that begin with a byte that no such character has.
        begins_visible = ((here != _SPACE) & (here != _WHITE) & (here != _LONG) & (bytes_N[1:] != ord("/"))) | (
            (here == _LONG) & ~np.isin(bytes_N[1:], (0xC2, 0xE1, 0xE2, 0xE3))
        )
        starts[1:] |= (bytes_N[1:-1] == ord("\n")) & visible[:-1] & begins_visible[1:]
    return np.append(False, starts)


@lru_cache(maxsize=4)
def words_of(tokenizer: Any) -> Words | None:
    """The words of a tokenizer, one memory a process; None if it is not of the kind that this module is for."""
    form = orjson.loads(tokenizer.to_str()) if hasattr(tokenizer, "to_str") else None
    if form is None or not _cuts_at_fixed_places(form):
        return None
    sizes = bytes_of_token(tokenizer, form)
    joined = None if sizes is None else JoinedWords(tokenizer, sizes, ascii_only=form["normalizer"] is not None)
    words = Words(tokenizer, joined, sizes if _tells_plain_offsets(form) else None)
    (ids,) = words.ids([_PROBE])
    whole = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    return words if ids.tolist() == whole else None


def _cuts_at_fixed_places(tokenizer: dict[str, Any]) -> bool:
    """Whether a tokenizer, from its JSON form, is of the kind that this module is for."""
    model, normalizer = tokenizer["model"], tokenizer["normalizer"]
    parts = _parts(tokenizer["pre_tokenizer"])
    return (
        model["type"] == "BPE"
        and not any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and (normalizer is None or normalizer["type"] == "NFC")
        and any(part["type"] == "ByteLevel" for part in parts)
        and all(part["type"] in _PARTS and not part.get("add_prefix_space") for part in parts)
        # An added token that takes white space beside it reaches over the places named above.
        and not any(
            token["lstrip"] or token["rstrip"] or any(map(str.isspace, token["content"]))
            for token in tokenizer["added_tokens"]
        )
    )


def _tells_plain_offsets(tokenizer: dict[str, Any]) -> bool:
    """Whether a tokenizer's offsets are those of the text as it is written, white space included."""
    processor = tokenizer["post_processor"]
    parts = [] if processor is None else processor.get("processors", [processor])
    return tokenizer["normalizer"] is None and all(
        part["type"] == "TemplateProcessing" or (part["type"] == "ByteLevel" and not part.get("trim_offsets", True))
        for part in parts
    )


def _parts(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A pre-tokenizer's parts, those of a sequence one by one."""
    if pre_tokenizer is None:
        return []
    inner = pre_tokenizer.get("pretokenizers", [])
    return [pre_tokenizer, *(part for one in inner for part in _parts(one))]
