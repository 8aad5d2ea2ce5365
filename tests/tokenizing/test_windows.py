"""Windows are the tokens of the whole text, whatever part of it was tokenized, for several families of tokenizers."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

import ladm.tasks.tokenizing.chunks
import ladm.tasks.tokenizing.windows
from ladm.tasks.errors import AccountError
from ladm.tasks.tokenizing.chunks import CHUNK_CHARS, ChunkEncoder, Document
from ladm.tasks.tokenizing.tokenizer import one_core_a_tokenizer
from ladm.tasks.tokenizing.window_edges import counted_chars
from ladm.tasks.tokenizing.windows import WindowConfig, cut_documents

CORPUS = Path(__file__).parents[2] / "../shared/corpus"
WORDS = [
    *("the", "of", "and", "window", "token", "attention", "it's", "they'll", "naïve", "schöne", "straße"),
    *("déjà", "2024", "3.14", "1234567", "x=1", "def", "return"),
]
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATHOLOGICAL = {
    "empty": "",
    "one letter": "a" * 30_000,
    "spaces": " " * 30_000,
    "spaces between words": "begin" + " " * 20_000 + "end of it all",
    "ideographs without punctuation": "字典編纂" * 5_000,
    "short": "a few words",
}


def _texts() -> dict[str, str]:
    """Texts of several chunks each, every one with places where a cut would be wrong."""
    rng = random.Random(7)

    def some(fragments: Iterable[str], separators: Iterable[str], count: int) -> str:
        fragments, separators = list(fragments), list(separators)
        return "".join(rng.choice(fragments) + rng.choice(separators) for _ in range(count))

    return {
        "prose": some(WORDS, [" ", " ", " ", ", ", ". ", "; ", ".\n\n"], 4_000),
        "white space runs": some(WORDS, [" " * 40, "  ", " \t ", "\n   \n", " ", "\r\n\r\n"], 2_000),
        "newlines after punctuation": some(WORDS, [".\n\n\n", "!\n", ")\r\n\r\n", ":\n\n  ", "?\n/", " "], 4_000),
        "code": some(WORDS, ["\n    ", "\n\t\t", "(", "):\n        ", " = ", "\n\n\n"], 4_000),
        "ideographs": some(
            ["注意力", "依存", "カタカナー", "文書", "한국어", "2024年"], ["。", "、", "", "。\n"], 6_000
        ),
        "emoji and marks": some(["👩‍👩‍👧", "é", "n̈", "🙂🙂", "हिन्दी", "ﷺ"], [" ", "", ", ", "\n"], 5_000),
        "rare characters": some(map(chr, rng.sample(range(0x4E00, 0x9FA6), 400)), ["", "", "。", " "], 14_000),
        "digits": some(["1234567", "3.14", "0x1f", "1,000"], [" ", ", ", "\n", ";"], 4_000),
    }


TEXTS = _texts()


def _byte_level(pattern: str | None, trim: bool = False) -> Tokenizer:
    """A byte-level BPE, with GPT-2's own regular expression unless `pattern` is given."""
    tokenizer = Tokenizer(models.BPE())
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    if trim:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS.values(), trainer)
    return tokenizer


def _sentencechunk_like() -> Tokenizer:
    """What Llama 2 has: a "▁" put before the text, no pre-tokenizer, one BPE over all of it.

    Trained, as SentenceChunk does, on words that begin with "▁" and on newlines and scripts apart.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s*[\r\n\t]\s*|[。、]"), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator([*TEXTS.values(), "▁"], trainer)
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


TOKENIZERS = {
    "gpt2": _byte_level(None),
    "trimmed offsets": _byte_level(None, trim=True),
    "cl100k": _byte_level(CL100K),
    "o200k": _byte_level(O200K),
    "sentencechunk": _sentencechunk_like(),
}
BYTE_LEVEL = [name for name in TOKENIZERS if name != "sentencechunk"]


def _whole(text: str, tokenizer: Tokenizer) -> np.ndarray[Any, Any]:
    return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int32)


def _by_chunks(text: str, tokenizer: Tokenizer) -> np.ndarray[Any, Any]:
    document = Document(text)
    encoded = list(ChunkEncoder(tokenizer).encode((document, chunk) for chunk in range(document.chunks)))
    ChunkEncoder(tokenizer).fill((document, chunk) for chunk in range(document.chunks))
    for chunk in encoded:
        np.testing.assert_array_equal(document.ids_of[chunk.chunk], chunk.ids)
    return np.concatenate([chunk.ids for chunk in encoded])


class _Spy:
    """A tokenizer that writes down what it was asked to tokenize."""

    truncation = None
    padding = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.inputs: list[str] = []

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def encode_batch(self, texts: list[str], add_special_tokens: bool) -> Any:
        self.inputs += texts
        return self.tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> Any:
        self.inputs += texts
        return self.tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", TEXTS)
def test_chunks_have_the_tokens_of_the_whole_text(name: str, tokenizer: str) -> None:
    text = TEXTS[name]
    assert Document(text).chunks >= 3
    np.testing.assert_array_equal(_by_chunks(text, TOKENIZERS[tokenizer]), _whole(text, TOKENIZERS[tokenizer]))


UNCUT = {
    "lines of spaces": ("       \n" * 4000),
    "tabs": "\t" * 30_000,
    "rules": ("-" * 6000 + "\n" + "_" * 6000 + "\n") * 3,
}
"""Texts that can be cut nowhere for thousands of characters."""


@pytest.mark.parametrize("tokenizer", BYTE_LEVEL)
@pytest.mark.parametrize("name", UNCUT)
def test_what_can_be_cut_nowhere_has_a_token_or_two_more_at_each_cut(name: str, tokenizer: str) -> None:
    """As docs/benchmarks.md says: the text is all there, and its tokens are not quite those of the whole."""
    text = UNCUT[name]
    ids, whole = _by_chunks(text, TOKENIZERS[tokenizer]), _whole(text, TOKENIZERS[tokenizer])
    assert 0 <= len(ids) - len(whole) <= 2 * (Document(text).chunks - 1)
    text_of, whole_text = ("".join(map(TOKENIZERS[tokenizer].id_to_token, map(int, one))) for one in (ids, whole))
    assert text_of == whole_text


FRAGMENTS = [
    *("the", "cat's", "I'LL", "12345", "é", "e\u0301", "字", "字典", "カー", "🙂", "\u064e", "_", "x_1"),
    *("。", "、", "/", "'", "’", "—", ".", "..", ")", "(", "\u200b", "\x1c"),
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\xa0", "\u3000", "\u2028"),
]


@given(st.lists(st.sampled_from(FRAGMENTS), min_size=8, max_size=120), st.sampled_from(BYTE_LEVEL))
@settings(max_examples=400, deadline=None)
def test_no_boundary_changes_the_tokens(fragments: list[str], name: str) -> None:
    text = "".join(fragments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladm.tasks.tokenizing.chunks, "CHUNK_CHARS", 12)
        document = Document(text)
        # A cut that had to be made at a place of no kind (see the module) may change a token.
        if any(document.start_of(chunk) == 12 * chunk for chunk in range(1, document.chunks)):
            return
        np.testing.assert_array_equal(_by_chunks(text, TOKENIZERS[name]), _whole(text, TOKENIZERS[name]))


@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=120), st.sampled_from(sorted(TOKENIZERS)))
@settings(max_examples=300, deadline=None)
def test_counting_bytes_tells_the_characters_that_the_tokenizer_does(fragments: list[str], name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladm.tasks.tokenizing.chunks, "CHUNK_CHARS", 12)
        encoder, document = ChunkEncoder(TOKENIZERS[name]), Document("".join(fragments))
        assert (encoder.bytes_of_token is not None) == (name in ("gpt2", "cl100k", "o200k"))
        if encoder.bytes_of_token is None:
            return
        encoder.fill((document, chunk) for chunk in range(document.chunks))
        for encoded in encoder.encode((document, chunk) for chunk in range(document.chunks)):
            tokens = range(1, len(encoded.ids) + 1)
            counted = counted_chars(document, encoded.chunk, tokens, encoder.bytes_of_token)
            assert counted == [encoded.chars_before(token) for token in tokens]


@pytest.mark.parametrize("length", [300])
@pytest.mark.parametrize("tokenizer", ["gpt2", "sentencechunk"])
def test_windows_do_not_depend_on_how_they_were_reached(tokenizer: str, length: int) -> None:
    texts = [TEXTS["prose"], TEXTS["ideographs"], TEXTS["emoji and marks"], *PATHOLOGICAL.values()]
    for take in ("first", "all", "front-middle-back"):
        estimated, exact = (
            cut_documents(
                texts,
                TOKENIZERS[tokenizer],
                WindowConfig(length=length, take=take, count=count),
            )
            for count in ("estimate", "exact")
        )
        for text, one, other in zip(texts, estimated, exact, strict=True):
            tokens = _by_chunks(text, TOKENIZERS[tokenizer])
            n = len(tokens)
            assert (other.doc_tokens, other.doc_tokens_exact) == (n, True)
            if take == "first":
                starts = [0][: n // length]
            elif take == "all":
                starts = list(range(0, n - length + 1, length))
            else:
                starts = [0, n - length][: n // length]
            got = [other.windows[0], other.windows[-1]] if len(starts) == 2 and take[1] == "r" else other.windows
            assert [window.index for window in one.windows] == list(range(len(one.windows)))
            assert len(got) == len(starts)
            for start, window in zip(starts, got, strict=True):
                assert window.input_ids.dtype == np.int32
                np.testing.assert_array_equal(window.input_ids, tokens[start : start + length])
            assert len(one.windows) == len(other.windows)
            for window, same in zip(one.windows, other.windows, strict=True):
                np.testing.assert_array_equal(window.input_ids, same.input_ids)
                assert (window.char_start, window.char_end) == (same.char_start, same.char_end)


@pytest.mark.parametrize("tokenizer", BYTE_LEVEL)
def test_all_windows_tile_the_text(tokenizer: str) -> None:
    length = 50
    split = 0
    cuts = cut_documents(list(TEXTS.values()), TOKENIZERS[tokenizer], WindowConfig(length=length, take="all"))
    for text, cut in zip(TEXTS.values(), cuts, strict=True):
        # A byte-level token is written with one character a byte, so that tokens tell the byte where each begins.
        tokens = TOKENIZERS[tokenizer].encode(text, add_special_tokens=False).tokens
        sizes = [len(token) for token in tokens]
        byte_at = np.concatenate([[0], np.cumsum(sizes)])
        assert byte_at[-1] == len(text.encode())
        begins = np.cumsum([0] + [len(char.encode()) for char in text])  # byte where each character begins
        assert cut.windows[0].char_start == 0
        for before, after in zip(cut.windows, cut.windows[1:], strict=False):
            byte = byte_at[after.index * length]
            start = int(np.searchsorted(begins, byte, side="right")) - 1  # the character that holds the byte
            is_split = bool(begins[start] < byte)
            split += is_split
            assert before.char_end - after.char_start == is_split
            if tokenizer == "trimmed offsets":  # which do not tell white space at a token's end from the next's
                assert text[after.char_start : start].strip() == ""
            else:
                assert after.char_start == start
    assert split > 0, "no window ended inside a character: the rule for that is not tested"


def test_a_character_split_between_windows_belongs_to_both() -> None:
    tokenizer = Tokenizer(models.BPE(vocab=_bytes(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    (cut,) = cut_documents(["ab字cd"], tokenizer, WindowConfig(length=3, take="all"))
    assert [(window.char_start, window.char_end) for window in cut.windows] == [(0, 3), (2, 4)]
    assert (cut.doc_tokens, cut.doc_tokens_exact) == (7, True)


def _bytes() -> dict[str, int]:
    return {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def _letters(count: int) -> str:
    """`count` tokens of the byte tokenizer, in words of seven letters and a space."""
    return ("abcdefg " * (count // 8 + 1))[:count]


@pytest.mark.parametrize(
    ("tokens", "starts"),
    [(99, []), (100, [0]), (199, [0]), (200, [0, 100]), (299, [0, 199]), (300, [0, 100, 200]), (1001, [0, 450, 901])],
)
def test_front_middle_back(tokens: int, starts: list[int]) -> None:
    tokenizer = Tokenizer(models.BPE(vocab=_bytes(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    (cut,) = cut_documents([_letters(tokens)], tokenizer, WindowConfig(length=100, take="front-middle-back"))
    # One token a character: characters are token numbers.
    assert [(window.char_start, window.char_end) for window in cut.windows] == [(at, at + 100) for at in starts]


def test_front_middle_back_of_a_long_text_tokenizes_three_stretches_of_it() -> None:
    tokenizer = Tokenizer(models.BPE(vocab=_bytes(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spy: Any = _Spy(tokenizer)
    text = _letters(1_000_000)
    (cut,) = cut_documents([text], spy, WindowConfig(length=5_000, take="front-middle-back"))
    assert [(window.char_start, window.char_end) for window in cut.windows] == [
        (0, 5_000),
        (497_500, 502_500),
        (995_000, 1_000_000),
    ]
    assert (cut.doc_tokens, cut.doc_tokens_exact) == (1_000_000, False)
    assert sum(map(len, spy.inputs)) < 30 * CHUNK_CHARS


def test_middle_of_an_uneven_text_keeps_clear_of_front_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladm.tasks.tokenizing.chunks, "CHUNK_CHARS", 10)
    monkeypatch.setattr(ladm.tasks.tokenizing.windows, "CHUNK_CHARS", 10)
    tokenizer = Tokenizer(models.BPE(vocab=_bytes(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # 100 characters of 100 tokens, then 100 of 340. The token of the middle character is about 100, and the window
    # around it would begin at about 30, inside the front window, which ends at 140.
    text = "a " * 50 + "👍👍👍👍 " * 20
    ids = _whole(text, tokenizer)
    (cut,) = cut_documents([text], tokenizer, WindowConfig(length=140, take="front-middle-back"))
    assert len(ids) == 440
    for window, start in zip(cut.windows, [0, 140, 300], strict=True):
        np.testing.assert_array_equal(window.input_ids, ids[start : start + 140])


def test_first_tokenizes_no_more_than_it_needs() -> None:
    spy: Any = _Spy(TOKENIZERS["gpt2"])
    text = TEXTS["prose"] * 100
    (cut,) = cut_documents([text], spy, WindowConfig(length=4_000))
    np.testing.assert_array_equal(cut.windows[0].input_ids, _whole(TEXTS["prose"] * 3, TOKENIZERS["gpt2"])[:4_000])
    # The window, a chunk more, and the last chunk again for its offsets.
    assert sum(map(len, spy.inputs)) <= cut.windows[0].char_end + 5 * CHUNK_CHARS
    assert not cut.doc_tokens_exact
    assert cut.doc_tokens == pytest.approx(100 * len(_whole(TEXTS["prose"], TOKENIZERS["gpt2"])), rel=0.05)


def test_no_input_of_the_tokenizer_is_long() -> None:
    spy: Any = _Spy(TOKENIZERS["sentencechunk"])
    cut_documents([*TEXTS.values(), *PATHOLOGICAL.values()], spy, WindowConfig(length=500, take="all"))
    assert max(map(len, spy.inputs)) < 2 * CHUNK_CHARS + 2


def test_count_is_exact_for_a_document_too_short_for_a_window() -> None:
    (cut,) = cut_documents([TEXTS["prose"]], TOKENIZERS["gpt2"], WindowConfig(length=1_000_000))
    assert cut.windows == []
    assert (cut.doc_tokens, cut.doc_tokens_exact) == (len(_whole(TEXTS["prose"], TOKENIZERS["gpt2"])), True)


def test_text_without_any_token_ends() -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    blank, late = cut_documents([" " * 100_000, " " * 100_000 + "a a a"], tokenizer, WindowConfig(length=2))
    assert (blank.windows, blank.doc_tokens, blank.doc_tokens_exact) == ([], 0, True)
    assert late.windows[0].input_ids.tolist() == [1, 1]


def test_truncating_tokenizers_are_refused() -> None:
    tokenizer = Tokenizer.from_str(TOKENIZERS["gpt2"].to_str())
    tokenizer.enable_truncation(8)
    with pytest.raises(AccountError, match="no_truncation"):
        cut_documents(["text"], tokenizer, WindowConfig(length=2))


@pytest.mark.parametrize("bad", [{"length": 1}, {"take": "last"}, {"count": "guess"}, {"size": 5}])
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WindowConfig(**bad)


@pytest.mark.parametrize("name", ["gpt2", "cl100k"])
def test_corpus(name: str) -> None:
    files = sorted(CORPUS.glob("*.jsonl.zst"))
    if not files:
        pytest.skip(f"no corpus at {CORPUS}")
    texts: list[str] = []
    for file in files:
        with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            lines = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
            texts += [orjson.loads(line)["text"][:50_000] for line in list(lines)[::15]]
    assert len(texts) > 50
    length = 1024
    cuts = cut_documents(texts, TOKENIZERS[name], WindowConfig(length=length))
    for text, cut in zip(texts, cuts, strict=True):
        whole = _whole(text, TOKENIZERS[name])
        assert len(cut.windows) == (len(whole) >= length)
        if cut.windows:
            np.testing.assert_array_equal(cut.windows[0].input_ids, whole[:length])


def test_a_tokenizers_threads_are_as_before_when_the_shards_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "TOKENIZERS_PARALLELISM"
    for before in ("true", None):
        if before is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, before)
        with one_core_a_tokenizer():
            assert os.environ[name] == "false"
        assert os.environ.get(name) == before
