"""Tokenizing by distinct words gives exactly the tokens of the whole text, or is not done."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_windows import BYTE_LEVEL, FRAGMENTS, TEXTS, TOKENIZERS
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

import ladm.tasks.tokenizing.word_cache
from ladm.tasks.tokenizing.word_cache import Words, words_of


def _digits(tokenizer: Tokenizer) -> Tokenizer:
    """What SmolLM2 has: digits apart, then GPT-2's byte level."""
    changed = Tokenizer.from_str(tokenizer.to_str())
    changed.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return changed


FIXED = {name: TOKENIZERS[name] for name in BYTE_LEVEL} | {"digits": _digits(TOKENIZERS["gpt2"])}


def _words(tokenizer: Tokenizer) -> Words:
    words = words_of(tokenizer)
    assert words is not None
    return words


def _whole(text: str, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("name", FIXED)
def test_words_have_the_tokens_of_the_whole_text(name: str) -> None:
    texts = ["", *TEXTS.values(), "", "one more", ""]
    for ids, text in zip(_words(FIXED[name]).ids(texts), texts, strict=True):
        assert ids.dtype == np.int32
        assert ids.tolist() == _whole(text, FIXED[name])
    assert [ids.tolist() for ids in _words(FIXED[name]).ids(["", ""])] == [[], []]


WHITE = [
    " ",
    "\n",
    "\t",
    "\r",
    "\x0b",
    "\x1c",
    "\x85",
    "\xa0",
    "\u1680",
    "\u2003",
    "\u2028",
    "\u202f",
    "\u205f",
    "\u3000",
]


@given(
    st.lists(st.sampled_from([*FRAGMENTS, *WHITE, "à", "é", "/", "'", "_"]), max_size=60), st.sampled_from(list(FIXED))
)
@example(["x", "à", " ", "y"], "gpt2")
@example(["a", "\u3000", " ", "b", "\n", "\xa0", "c", "\n", "/", "d"], "o200k")
@settings(max_examples=400, deadline=None)
def test_no_word_changes_the_tokens(fragments: list[str], name: str) -> None:
    text = "".join(fragments)
    (ids,) = _words(FIXED[name]).ids([text])
    assert ids.tolist() == _whole(text, FIXED[name])


def test_a_word_goes_to_the_tokenizer_once_and_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Spy:
        def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> Any:
            asked.extend(texts)
            return FIXED["gpt2"].encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    words = Words(Spy())
    for _ in range(2):
        words.ids(["the cat, the dog,", "the cat\nthe end"])
    assert sorted(asked) == sorted(["the", " cat", ",", " the", " dog", "\n", " end"])
    monkeypatch.setattr(ladm.tasks.tokenizing.word_cache, "REMEMBERED_WORDS", 10)
    text = " ".join(f"word{number}" for number in range(50))
    for begin in range(3):
        (ids,) = words.ids([text[begin:]])
        assert ids.tolist() == _whole(text[begin:], FIXED["gpt2"])
        words.ids([" few more"])
    assert len(words._known) <= 50


def test_tokenizers_that_look_over_the_edge_of_a_word_are_left_alone() -> None:
    assert words_of(TOKENIZERS["sentencechunk"]) is None
    for change in (
        lambda one: one.add_tokens([AddedToken("<sep>", lstrip=True)]),
        lambda one: one.add_tokens(["two words"]),
        lambda one: setattr(one, "normalizer", normalizers.Prepend("▁")),
        lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.Whitespace()),
    ):
        tokenizer = Tokenizer.from_str(TOKENIZERS["gpt2"].to_str())
        change(tokenizer)
        assert words_of(tokenizer) is None
