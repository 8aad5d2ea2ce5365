"""Decoding from a table gives what the tokenizer itself gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ladm.tasks.tokenizing import decoding
from ladm.tasks.tokenizing.decoding import decoder_of

TEXTS = [
    "the cat sat on the mat, the cat!",
    "naïve café – 日本語のテキスト 🙂🙂",
    "def f(x):\n\treturn x  # \x00\x7f",
] * 3


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>", "§ é"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([" added token", "Ünlü"])
    return tokenizer


TOKENIZER = byte_level()


def own(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.get_vocab_size() - 1), max_size=40))
def test_any_tokens_in_any_order_halves_of_characters_too(ids: list[int]) -> None:
    assert decoder_of(TOKENIZER)(np.array(ids, np.int32)) == own(TOKENIZER, ids)


def test_every_token_alone_and_texts() -> None:
    decode = decoder_of(TOKENIZER)
    for number in range(TOKENIZER.get_vocab_size()):
        assert decode(np.array([number])) == own(TOKENIZER, [number])
    for text in TEXTS:
        assert decode(np.array(TOKENIZER.encode(text).ids)) == text


def test_a_tokenizer_of_another_kind_decodes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    assert decoder_of(words)(np.array([0, 1])) == own(words, [0, 1]) == "a b"
    metaspace = Tokenizer(models.Unigram([("▁the", -1.0), ("▁cat", -2.0), ("s", -3.0)], unk_id=0))
    metaspace.decoder = decoders.Metaspace()
    assert decoder_of(metaspace)(np.array([0, 1, 2])) == own(metaspace, [0, 1, 2]) == "the cats"
    monkeypatch.setattr(decoding, "_bytes_of_tokens", lambda _: None)
    assert decoder_of(TOKENIZER)(np.array(TOKENIZER.encode(TEXTS[1]).ids)) == TEXTS[1]
