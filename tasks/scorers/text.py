"""What a window's text and tokens are made of, and how far they repeat themselves: cheap columns, no judgement.

They cost a small part of tokenization, and no forward pass. Real windows have a range in each; the gate (`gate.py`)
asks whether a window lies within what real windows have in all of them at once, and `select.where` may ask for any.

| column | is |
|---|---|
| `gzip_ratio` | bytes that zlib makes of the text ÷ its bytes |
| `zstd_ratio` | the same by zstd, which looks back over the whole window |
| `zstd_halves` | zstd's bytes for the two halves, each alone, ÷ its bytes for the whole: what the halves share |
| `distinct_tokens` | distinct tokens ÷ tokens |
| `token_entropy` | entropy of the tokens ÷ the most it could be |
| `tokens_once` | distinct tokens that come once ÷ distinct tokens |
| `clumping` | how close together a token comes again: minus the mean log of the way to the next ÷ an even share of it |
| `fixed_pairs` | log of how often pairs of neighbours come again, against as often by chance |
| `repeated_ngrams` | share of the runs of 6 tokens that also begin earlier in the window |
| `repeated_ngrams_far` | share of those that also begin a quarter of the window earlier, or more |
| `repeated_lines` | share of the lines that are the same as another one |
| `repeated_line_shapes` | share of the lines of the same shape as another one: letters, digits, spaces and marks |
| `shape_ratio` | zstd's bytes for the text's shape ÷ the bytes of the shape |
| `digit_share`, `space_share`, `mark_share` | share of the bytes that are digits; spaces or tabs; all other marks |
| `line_bytes`, `line_spread` | mean bytes of a line; their standard deviation ÷ that |

Dimensions in names: L tokens of the window, N n-grams, C characters (as bytes of UTF-8).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard

from ladm.tasks.scorers.evidence import Evidence, Needs
from ladm.tasks.scorers.gzip_ratio import gzip_ratio
from ladm.tasks.settings import Settings

NAMES = (
    *("gzip_ratio", "zstd_ratio", "zstd_halves", "distinct_tokens", "token_entropy"),
    *("tokens_once", "clumping", "fixed_pairs"),
    *("repeated_ngrams", "repeated_ngrams_far", "repeated_lines", "repeated_line_shapes", "shape_ratio"),
    *("digit_share", "space_share", "mark_share", "line_bytes", "line_spread"),
)
COLUMNS = [pa.field(name, pa.float64()) for name in NAMES]

VERSION = 3


class TextConfig(Settings):
    """Columns of what the window's text is made of. There is nothing to set."""


_FAR = 4  # a far repeat is at least a quarter of the window back
_GRAM = 6  # tokens
_MOST_COMMON = 20  # a token that comes oftener is everywhere
_MOST_16 = 0xFFFF
_FEWEST_AGAIN = 11  # of fewer tokens that come again, nothing can be told
EVEN_CLUMPING = 0.6
"""`clumping` of tokens that are strewn evenly."""
_LEVEL = 1
_ROOM = 8  # slots of a table of hashes, for each value
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LETTER, _DIGIT, _SPACE, _OTHER = ord("a"), ord("0"), ord(" "), ord("#")


CONFIG = TextConfig


def needs(config: TextConfig, length: int) -> Needs:
    """The window's text."""
    return Needs(text=True)


def score(config: TextConfig, evidence: Evidence) -> dict[str, float]:
    """The columns of one window."""
    return text_columns(evidence.ids, evidence.text)


def text_columns(ids_L: npt.NDArray[np.integer], text: str) -> dict[str, float]:
    """The measurements of one window, by the names of `COLUMNS`: ratios, shares, and lengths in bytes.

    Args:
        ids_L: The window's token ids.
        text: What they stand for.
    """
    raw = text.encode("utf-8", "surrogatepass") or b" "
    shape_C = np.frombuffer(raw.translate(_classes()), np.uint8)
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)  # none is shared: threads may meet here
    middle = len(raw) // 2
    whole, first, second = (_compressed(compressor, part) for part in (raw, raw[:middle], raw[middle:]))
    near, far = _repeated(ids_L)
    recurring = recurrence(ids_L)
    lines = [line for line in raw.split(b"\n") if line.strip()] or [raw]
    sizes = [len(line) for line in lines]
    mean = sum(sizes) / len(sizes)
    spread = math.sqrt(sum([(size - mean) ** 2 for size in sizes]) / len(sizes))
    shape = _collapsed(shape_C)
    shapes = [line for line in shape.split(b"\n") if line]
    return {
        "gzip_ratio": gzip_ratio(raw),
        "zstd_ratio": whole / len(raw),
        "zstd_halves": (first + second) / whole,
        **recurring,
        "repeated_ngrams": near,
        "repeated_ngrams_far": far,
        "repeated_lines": 1 - len(set(lines)) / len(lines),
        "repeated_line_shapes": 1 - len(set(shapes)) / max(1, len(shapes)),
        "shape_ratio": _compressed(compressor, shape) / max(1, len(shape)),
        "digit_share": np.count_nonzero(shape_C == _DIGIT) / len(raw),
        "space_share": np.count_nonzero(shape_C == _SPACE) / len(raw),
        "mark_share": np.count_nonzero(shape_C == _OTHER) / len(raw),
        "line_bytes": mean,
        "line_spread": spread / mean,
    }


def recurrence(ids_L: npt.NDArray[np.integer]) -> dict[str, float]:
    """How tokens come again: the columns from `distinct_tokens` to `fixed_pairs`.

    Words drawn at random from a vocabulary come again evenly, hardly one of them once, and in no fixed company.
    """
    length = len(ids_L)
    order_L = _order(ids_L)
    sorted_L = ids_L[order_L]
    first = np.flatnonzero(np.concatenate(([True], sorted_L[1:] != sorted_L[:-1])))
    counts = np.diff(np.append(first, length))
    count_L = np.repeat(counts, counts)  # of each place in the sorted order
    share = counts / length
    again = np.flatnonzero((sorted_L[1:] == sorted_L[:-1]) & (count_L[1:] <= _MOST_COMMON))
    clumping = EVEN_CLUMPING
    if len(again) >= _FEWEST_AGAIN:
        way = (order_L[again + 1] - order_L[again]) * (count_L[again] + 1) / length
        clumping = -float(np.log(way).mean())
    number_L = np.empty(length, np.int64)  # of each token among the distinct ones
    number_L[order_L] = np.repeat(np.arange(len(counts)), counts)
    share_L = share[number_L]
    chance = float(share_L[:-1] @ share_L[1:]) * (length - 1)
    by_second = _order(number_L[1:])
    by_both = by_second[_order(number_L[by_second])]
    one, other = number_L[by_both], number_L[by_both + 1]
    ends = np.flatnonzero(np.concatenate(((one[1:] != one[:-1]) | (other[1:] != other[:-1]), [True])))
    times = np.diff(ends, prepend=-1)
    return {
        "distinct_tokens": len(counts) / length,
        "token_entropy": float(-(share * np.log(share)).sum()) / math.log(max(2, length)),
        "tokens_once": float(np.count_nonzero(counts == 1) / len(counts)),
        "clumping": clumping,
        "fixed_pairs": math.log((float((times * (times - 1)).sum()) + 1) / (chance + 1)),
    }


def _order(number_L: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """What sorts numbers from 0 on, those that are alike in their order: numpy sorts 16 bits by counting."""
    order_L = np.argsort(number_L.astype(np.uint16), kind="stable")
    if len(number_L) and int(number_L.max()) > _MOST_16:
        order_L = order_L[np.argsort((number_L >> 16).astype(np.uint16)[order_L], kind="stable")]
    return order_L


def _repeated(ids_L: npt.NDArray[np.integer]) -> tuple[float, float]:
    """The share of n-grams that also begin earlier, and of those that begin a quarter of the window earlier or more."""
    if len(ids_L) < _GRAM:
        return 0.0, 0.0
    hash_N = np.zeros(len(ids_L) - _GRAM + 1, np.uint64)
    more_L = ids_L.astype(np.uint64) + np.uint64(1)
    for place in range(_GRAM):
        hash_N += more_L[place : place + len(hash_N)]
        hash_N *= _MULTIPLIER
        hash_N ^= hash_N >> np.uint64(29)
    back_N = np.arange(len(hash_N)) - _first_places(hash_N)
    near, far = (np.count_nonzero(back_N >= least) / len(back_N) for least in (1, max(1, len(ids_L) // _FAR)))
    return near, far


def _first_places(value_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.int_]:
    """Of each value, the place where it first comes; a table of hashes takes half the time of sorting them."""
    place_N = np.arange(len(value_N))
    bits = (len(value_N) * _ROOM).bit_length()
    slot_N = (value_N >> np.uint64(64 - bits)).astype(np.int64)
    first_of_slot = np.empty(1 << bits, np.int64)  # slots without a value are never read
    first_of_slot[slot_N[::-1]] = place_N[::-1]
    first_N = first_of_slot[slot_N]
    # Where another value came first in the slot, all places of a value are here.
    beaten = np.flatnonzero(value_N[first_N] != value_N)
    if len(beaten):
        _, begin, number = np.unique(value_N[beaten], return_index=True, return_inverse=True)
        first_N[beaten] = beaten[begin][number]
    return first_N


def _compressed(compressor: zstandard.ZstdCompressor, content: bytes) -> int:
    """Bytes that zstd makes of the content, its header left out."""
    return max(1, len(compressor.compress(content)) - 9)


@functools.cache
def _classes() -> bytes:
    """Byte → class of its character: letter (all but ASCII too), digit, space, newline as it is, or anything else."""
    table = np.full(256, _OTHER, np.uint8)
    table[128:] = _LETTER
    for first, last in ((ord("a"), ord("z")), (ord("A"), ord("Z"))):
        table[first : last + 1] = _LETTER
    table[ord("0") : ord("9") + 1] = _DIGIT
    table[[ord(" "), ord("\t")]] = _SPACE
    table[ord("\n")] = ord("\n")
    return table.tobytes()


def _collapsed(shape_C: npt.NDArray[np.uint8]) -> bytes:
    """The text's shape: the classes of its characters, each run of one class once."""
    kept = np.concatenate(([True], shape_C[1:] != shape_C[:-1]))
    return shape_C[np.flatnonzero(kept)].tobytes()
