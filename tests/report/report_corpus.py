"""Two runs to report on: the second has a changed file, a file less, a hostile file more, and another budget."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Answer, Corpus, run_arguments, sentence

HOSTILE_TITLE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp; $\\frac{"
HOSTILE_DOMAIN = "'; DROP TABLE <b> $x_{1"
HOSTILE_START = (
    "</script><script>document.title='taken'</script> </title><iframe src=//example.com></iframe> \x1b[31m \u202e "
)

REPORTED = tuple[Path, dict[str, Any], dict[str, Any]]
"""The store, and the records of the two runs."""


def second_run(place: Path, corpus: Corpus, ladm: Callable[..., Answer]) -> list[dict[str, Any]]:
    """Run twice into `place`/store, with changes between; the records."""
    store = place / "store"
    first = ladm(*run_arguments(corpus, store))
    assert first.code == 0, first.err
    poems = corpus.folder / "poems.jsonl"
    lines = poems.read_text(encoding="utf-8").splitlines()
    words = random.Random(7)
    added = json.dumps({"text": sentence(words, 480), "meta": {"pile_set_name": "Poems", "license": "CC0"}})
    poems.write_text("\n".join([added, "{not json <i>", *lines]) + "\n", encoding="utf-8")
    (corpus.folder / "letters.jsonl").unlink()
    hostile = [
        {
            "text": HOSTILE_START + sentence(words, length),
            "meta": {"pile_set_name": HOSTILE_DOMAIN, "title": HOSTILE_TITLE},
        }
        for length in (300, 340, 380)
    ]
    content = "\n".join(json.dumps(one) for one in hostile) + "\n"
    (corpus.folder / "hostile <b>.jsonl").write_text(content, encoding="utf-8")
    second = ladm(*run_arguments(corpus, store, "select.budget_tokens=6000"))
    assert second.code == 0, second.err
    return [first.record, second.record]
