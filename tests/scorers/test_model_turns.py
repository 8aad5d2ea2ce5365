"""Turns with the model: who goes beside whom, on how many threads; the answers are each part's own, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import SHAPE, windows
from transformers import LlamaConfig, LlamaModel

from ladm.tasks.scorers.calculator import load_calculator
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.model_turns import Turns
from ladm.tasks.scorers.window_scores import score_windows


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_one_part_has_all_threads_and_two_go_side_by_side_on_half() -> None:
    turns = Turns(threads=4, at_once=2)
    together = threading.Barrier(2)

    def beside(part: str) -> tuple[str, int]:
        together.wait(timeout=60)  # passes only if two are really at work
        return part, torch.get_num_threads()

    assert turns.each(lambda part: (part, torch.get_num_threads()), ["a"]) == [("a", 4)]
    assert turns.each(beside, ["a", "b", "c", "d"]) == [("a", 2), ("b", 2), ("c", 2), ("d", 2)]
    assert turns.each(lambda part: (part, torch.get_num_threads()), ["a"]) == [("a", 4)]
    assert turns.each(beside, []) == []


def test_two_jobs_of_one_part_go_side_by_side() -> None:
    turns = Turns(threads=4, at_once=2)
    first_is_at_work, both = threading.Event(), threading.Barrier(2)

    def first(_: int) -> int:
        first_is_at_work.set()
        return torch.get_num_threads()

    def one_of_two(_: int) -> int:
        both.wait(timeout=60)
        return torch.get_num_threads()

    assert turns.each(first, [0]) == [4]
    with ThreadPoolExecutor(3) as jobs:
        held = threading.Event()
        alone = jobs.submit(turns.each, lambda _: (held.wait(60), torch.get_num_threads())[1], [0])
        while not turns._alone:
            threading.Event().wait(0.001)
        others = [jobs.submit(turns.each, one_of_two, [number]) for number in range(2)]
        while turns._waiting < 2:
            threading.Event().wait(0.001)
        held.set()
        assert alone.result() == [4]
        assert [other.result() for other in others] == [[2], [2]]


def test_on_a_device_parts_go_one_after_the_other_in_the_callers_thread() -> None:
    turns = Turns(threads=4, at_once=1)
    here = threading.get_ident()
    found = turns.each(lambda part: (part, threading.get_ident(), torch.get_num_threads()), [1, 2])
    assert found == [(1, here, 4), (2, here, 4)]


def test_an_error_comes_through_and_the_next_gets_its_turn() -> None:
    turns = Turns(threads=4, at_once=2)
    with pytest.raises(ZeroDivisionError):
        turns.each(lambda part: 1 // part, [1, 0, 2])
    assert turns.each(lambda part: (part, torch.get_num_threads()), [5]) == [(5, 4)]
    with turns.alone():
        pass
    assert turns.each(lambda part: part, [1, 2, 3]) == [1, 2, 3]


def test_alone_waits_for_the_others_and_they_for_it() -> None:
    turns = Turns(threads=4, at_once=2)
    seen: list[str] = []
    with ThreadPoolExecutor(1) as jobs:
        with turns.alone():
            waiting = jobs.submit(turns.each, seen.append, ["after"])
            while not turns._waiting:
                threading.Event().wait(0.001)
            seen.append("alone")
        waiting.result()
    assert seen == ["alone", "after"]


def test_scores_do_not_depend_on_who_goes_beside_whom(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    LlamaModel(LlamaConfig(**SHAPE)).save_pretrained(folder)
    config = LadmConfig(span=8, d_afs=2, d_cds=3, device="cpu")
    calculator = load_calculator(folder, config)
    ids_BL = windows(6, 320)

    def scored(threads: int, at_once: int, parts: int) -> list[list[float]]:
        found = Turns(threads, at_once).each(
            lambda ids_BL: score_windows(calculator, config, ids_BL), np.array_split(ids_BL, parts)
        )
        return [one.cds_per_layer for scores in found for one in scores]

    assert scored(4, 2, 6) == scored(1, 1, 6) == scored(4, 1, 6)
