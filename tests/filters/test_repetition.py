"""Gopher's repetition thresholds: each share as counted by hand, each threshold exact at its border."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladm.tasks.filters.repetition import RepetitionConfig, shares, too_repetitive

NONE_BUT: dict[str, float | None] = dict.fromkeys(RepetitionConfig.model_fields)


def only(**thresholds: float) -> RepetitionConfig:
    """One threshold alone."""
    return RepetitionConfig(**{**NONE_BUT, **thresholds})


def test_the_defaults_are_those_of_the_paper() -> None:
    assert RepetitionConfig().model_dump() == {
        "duplicate_lines": 0.30, "duplicate_paragraphs": 0.30,
        "duplicate_line_chars": 0.20, "duplicate_paragraph_chars": 0.20,
        "top_2_gram": 0.20, "top_3_gram": 0.18, "top_4_gram": 0.16,
        "duplicate_5_grams": 0.15, "duplicate_6_grams": 0.14, "duplicate_7_grams": 0.13,
        "duplicate_8_grams": 0.12, "duplicate_9_grams": 0.11, "duplicate_10_grams": 0.10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" \n\n ", {}),
        ("one", {}),
        # 7 characters; of 4 lines "a" comes three times, so two are duplicates; words: "a b a a"
        ("a\nb\na\na", {"duplicate_lines": 2 / 4, "duplicate_line_chars": 2 / 7}),
        # white space at the ends and empty lines make no difference: 3 lines, one of 2 characters again, 14 in all
        ("ab\n\n  ab \r\ncd\n", {"duplicate_lines": 1 / 3, "duplicate_line_chars": 2 / 14,
                                 "duplicate_paragraphs": 0, "duplicate_paragraph_chars": 0}),
        # 3 paragraphs, one again with 3 characters of 12; of 5 lines two
        ("a\nb\n\na\nb\n \nc", {"duplicate_paragraphs": 1 / 3, "duplicate_paragraph_chars": 3 / 12,
                                "duplicate_lines": 2 / 5, "duplicate_line_chars": 2 / 12,
                                "top_2_gram": 6 / 12}),
        # 23 characters: "one two" comes twice, 7 characters each; "one two one" twice, 19 characters together
        ("one two one two one six", {"top_2_gram": 14 / 23, "top_3_gram": 19 / 23}),
        # "bbb ccc" is as frequent as "a a", and longer
        ("a a x a a y bbb ccc z bbb ccc", {"top_2_gram": 14 / 29}),
        # a run of five words again: 9 of 21 characters; its two runs of four are as frequent, and as long: the first
        ("a b c d e f a b c d e", {"top_2_gram": 6 / 21, "top_3_gram": 10 / 21, "top_4_gram": 14 / 21,
                                   "duplicate_5_grams": 9 / 21}),
        # what two duplicates of five words have in common is counted once: 11 of 23 characters
        ("a b c d e f a b c d e f", {"top_2_gram": 6 / 23, "top_3_gram": 10 / 23, "top_4_gram": 14 / 23,
                                     "duplicate_5_grams": 11 / 23, "duplicate_6_grams": 11 / 23}),
        # duplicates may begin within what they repeat: ten words alike, 19 characters
        ("a a a a a a a a a a", {"top_2_gram": 1, "top_3_gram": 1, "top_4_gram": 1, "duplicate_5_grams": 17 / 19,
                                 "duplicate_6_grams": 17 / 19, "duplicate_7_grams": 17 / 19,
                                 "duplicate_8_grams": 17 / 19, "duplicate_9_grams": 17 / 19}),
    ],
)  # fmt: skip
def test_shares_are_as_counted_by_hand(text: str, expected: dict[str, float]) -> None:
    found = dict(shares(text))
    assert list(found) == list(
        ["duplicate_lines", "duplicate_line_chars", "duplicate_paragraphs", "duplicate_paragraph_chars"]
        + [f"top_{n}_gram" for n in (2, 3, 4)]
        + [f"duplicate_{n}_grams" for n in range(5, 11)]
    )
    assert {name: share for name, share in found.items() if share} == pytest.approx(
        {name: share for name, share in expected.items() if share}
    )


@pytest.mark.parametrize(
    ("setting", "stays", "falls", "default"),
    [
        # lines that are duplicates: 3 of 10, 4 of 10
        ("duplicate_lines", "\n".join("abcdefgabc"), "\n".join("abcdefabcd"), 0.30),
        ("duplicate_paragraphs", "\n\n".join("abcdefgabc"), "\n\n".join("abcdefabcd"), 0.30),
        # characters in them: 4 of 20, 5 of 22
        ("duplicate_line_chars", "aaaa\naaaa\nbbbbbbbbbb", "aaaaa\naaaaa\nbbbbbbbbbb", 0.20),
        ("duplicate_paragraph_chars", "aaaa\n\naaaa\n\nbbbbbbbb", "aaaaa\n\naaaaa\n\nbbbbbbbb", 0.20),
        # characters in both of "a b": 6 of 30, 6 of 29
        ("top_2_gram", f"a b a b {'c' * 22}", f"a b a b {'c' * 21}", 0.20),
        # in both of "aa b c": 12 of 67, 12 of 66
        ("top_3_gram", f"aa b c x aa b c {'y' * 51}", f"aa b c x aa b c {'y' * 50}", 0.18),
        # in both of "a b c d": 14 of 88, 14 of 87
        ("top_4_gram", f"a b c d x a b c d {'y' * 70}", f"a b c d x a b c d {'y' * 69}", 0.16),
        # characters in the second "a b c d e": 9 of 60, 9 of 59
        ("duplicate_5_grams", f"a b c d e x a b c d e {'y' * 38}", f"a b c d e x a b c d e {'y' * 37}", 0.15),
        ("duplicate_10_grams", f"{'a b c d e f g h i j ' * 2}{'y' * 150}", f"{'a b c d e f g h i j ' * 2}{'y' * 149}",
         0.10),
    ],
)  # fmt: skip
def test_each_threshold_is_exact_at_its_border(setting: str, stays: str, falls: str, default: float) -> None:
    assert dict(shares(stays))[setting] <= default < dict(shares(falls))[setting]
    assert too_repetitive(stays, only(**{setting: default})) is None
    assert too_repetitive(falls, only(**{setting: default})) == setting.replace("_", " ")
    assert too_repetitive(falls, only()) is None


def test_the_first_share_that_is_too_high_is_told() -> None:
    assert too_repetitive("a\nb\na\na", RepetitionConfig()) == "duplicate lines"
    assert too_repetitive("one two one two one six", RepetitionConfig()) == "top 2 gram"
    prose = "Of two such lines one is no repetition of the other, whatever they may have in common.\nThey are short."
    assert too_repetitive(prose, RepetitionConfig()) is None


def _of_words_by_hand(text: str, n: int) -> float:
    words = text.split()
    begins, place = [], 0
    for word in words:
        begins.append(place)
        place += len(word) + 1
    grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    counts = Counter(grams)
    if n <= 4:
        most = max(counts.values(), default=0)
        often = [gram for gram in grams if counts[gram] == most and most > 1]
        longest = max(often, key=lambda gram: sum(map(len, gram)), default=None)
        chosen = [at for at, gram in enumerate(grams) if gram == longest]
    else:
        chosen = [at for at, gram in enumerate(grams) if gram in grams[:at]]
    covered = {
        character
        for at in chosen
        for character in range(begins[at], begins[at + n - 1] + len(words[at + n - 1]))
    }  # fmt: skip
    return len(covered) / max(1, len(text))


@given(st.lists(st.sampled_from(["a", "b", "cc", "dé", "\n", "  ", "\u3000", "\t"]), max_size=60))
def test_any_text_has_the_shares_that_the_definitions_give(pieces: list[str]) -> None:
    text = " ".join(pieces)
    found = dict(shares(text))
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    for kind, parts in (("line", lines), ("paragraph", paragraphs)):
        again = [part for place, part in enumerate(parts) if part in parts[:place]]
        assert found[f"duplicate_{kind}s"] == pytest.approx(len(again) / max(1, len(parts)))
        assert found[f"duplicate_{kind}_chars"] == pytest.approx(sum(map(len, again)) / max(1, len(text)))
    for n in range(2, 11):
        name = f"top_{n}_gram" if n <= 4 else f"duplicate_{n}_grams"
        assert found[name] == pytest.approx(_of_words_by_hand(text, n)), name
