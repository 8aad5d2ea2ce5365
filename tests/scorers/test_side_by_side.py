"""Windows side by side on a CPU: the same answers in the same order, on shares of the threads, and as before after."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from ladm.tasks.scorers.model_turns import WINDOWS_AT_ONCE, side_by_side


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("windows", "threads", "device", "expected"),
    [
        (4, 2, "cpu", [2, 2, 2, 2]),
        (3, 2, "cpu", [2, 2, 1]),
        (1, 2, "cpu", [1]),
        (0, 2, "cpu", []),
        (3, 1, "cpu", [1, 1, 1]),
        (9, 64, "cpu", [WINDOWS_AT_ONCE] * 8 + [1]),
        (4, 2, "cuda", [1, 1, 1, 1]),
    ],
)
def test_rounds_order_and_threads(windows: int, threads: int, device: str, expected: list[int]) -> None:
    torch.set_num_threads(threads)
    seen: dict[int, int] = {}
    together = threading.Barrier(expected[0]) if windows else None  # passes only if so many are really at work

    def work(window: int) -> str:
        seen[window] = torch.get_num_threads()
        if expected[window] > 1:
            assert together is not None
            together.wait(timeout=60)
        return f"result {window}"

    found = list(side_by_side(work, range(windows), device))
    assert found == [(f"result {number}", at_once) for number, at_once in enumerate(expected)]
    assert [seen[number] for number in range(windows)] == [max(1, threads // at_once) for at_once in expected]
    assert torch.get_num_threads() == threads


def test_an_error_comes_through_and_the_threads_come_back() -> None:
    def work(window: int) -> int:
        return 1 // window

    with pytest.raises(ZeroDivisionError):
        list(side_by_side(work, range(4), "cpu"))
    assert torch.get_num_threads() == 4
