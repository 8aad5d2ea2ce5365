"""Words joined to long texts have the tokens that they have alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
import pytest
from test_word_cache import FIXED
from tokenizers import AddedToken, Tokenizer, normalizers

from ladm.tasks.tokenizing.joined_words import TEXT_BYTES, JoinedWords, bytes_of_token
from ladm.tasks.tokenizing.word_cache import words_of


def made_up(count: int) -> list[str]:
    """Different words of every kind that is joined, and of some that are not."""
    chance = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyzABC0123456789'_-.éяß日"
    beginnings = [" ", " ", " ", "\t", "\n", "\n  ", ".", "(", " (", "", "  ", "'", ";\n\t", "\r\n", "\u00a0"]
    ends = ["", "", "", "", ".", "é", "'s", "7", " ", "\n"]
    return list(
        dict.fromkeys(
            chance.choice(beginnings) + "".join(chance.choices(letters, k=chance.randint(1, 9))) + chance.choice(ends)
            for _ in range(count)
        )
    )


def joined_of(tokenizer: Tokenizer, shift: int = 0) -> JoinedWords:
    form = orjson.loads(tokenizer.to_str())
    sizes = bytes_of_token(tokenizer, form)
    assert sizes is not None
    return JoinedWords(tokenizer, sizes + shift, ascii_only=form["normalizer"] is not None)


def alone(tokenizer: Tokenizer, word: str) -> bytes:
    return np.array(tokenizer.encode(word, add_special_tokens=False).ids, np.int32).tobytes()


@pytest.mark.parametrize("name", FIXED)
def test_joined_words_have_the_tokens_that_they_have_alone(name: str) -> None:
    words = made_up(5000)
    found = joined_of(FIXED[name]).tokens(words)
    assert len(words) / 3 < len(found) < len(words)
    assert found == {word: alone(FIXED[name], word) for word in found}
    assert " " not in {word[-1] for word in found}


def test_they_reach_the_tokenizer_as_a_few_long_texts() -> None:
    tokenizer = Tokenizer.from_str(FIXED["gpt2"].to_str())
    asked: list[str] = []

    class Spy:
        def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> Any:
            asked.extend(texts)
            return tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    sizes = bytes_of_token(tokenizer, orjson.loads(tokenizer.to_str()))
    assert sizes is not None
    found = JoinedWords(Spy(), sizes, ascii_only=False).tokens(made_up(5000))
    assert len(asked) <= 2 + sum(len(word.encode()) for word in found) / TEXT_BYTES
    assert sorted("".join(asked)) == sorted("".join(found))


def test_after_a_normalizer_only_ascii_is_joined() -> None:
    tokenizer = Tokenizer.from_str(FIXED["gpt2"].to_str())
    tokenizer.normalizer = normalizers.NFC()
    found = joined_of(tokenizer).tokens([*made_up(3000), " e\u0301"])
    assert found
    assert all(map(str.isascii, found))


def test_where_the_bytes_do_not_add_up_nothing_is_joined() -> None:
    assert joined_of(FIXED["gpt2"], shift=1).tokens(made_up(500)) == {}
    assert joined_of(FIXED["gpt2"]).tokens([" a", " b"]) == {}, "too few"


def test_names_that_are_read_in_a_text_forbid_joining() -> None:
    tokenizer = Tokenizer.from_str(FIXED["gpt2"].to_str())
    tokenizer.add_tokens(["ab.c"])
    assert bytes_of_token(tokenizer, orjson.loads(tokenizer.to_str())) is None
    tokenizer = Tokenizer.from_str(FIXED["gpt2"].to_str())
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    tokenizer.encode_special_tokens = False
    assert bytes_of_token(tokenizer, orjson.loads(tokenizer.to_str())) is None
    tokenizer.encode_special_tokens = True
    assert bytes_of_token(tokenizer, orjson.loads(tokenizer.to_str())) is not None


@pytest.mark.parametrize("name", FIXED)
def test_texts_of_many_words_have_the_tokens_of_the_whole(name: str) -> None:
    chance, words = random.Random(2), made_up(3000)
    texts = ["".join(chance.choices(words, k=1500)) for _ in range(3)]
    counted = words_of(FIXED[name])
    assert counted is not None
    for text, ids in zip(texts, counted.ids(texts), strict=True):
        assert ids.tolist() == FIXED[name].encode(text, add_special_tokens=False).ids
