"""What a command prepared for the flow that it starts, since a Prefect flow's parameters would have to be JSON.

What is handed over is taken once, by the flow that it was prepared for, and is gone when the command is done: a second
run in the same process never does the first one's plan.

In a module of its own: Ray and Dask send the flow's function to their workers by value, with all that it names, and a
context variable cannot be sent. A module is sent by its name.

The account of a run that was prepared goes back the same way: Prefect looks through all that a flow returns for futures
of its own, which for the account of 20,000 files takes more than a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ladm.tasks.errors import AccountError

if TYPE_CHECKING:
    from ladm.flows.config import RunConfig
    from ladm.flows.console import Console
    from ladm.flows.dag.plan import Plan
    from ladm.flows.evaluation.request import Question

Thing = TypeVar("Thing")


@dataclass
class _Handed(Generic[Thing]):
    """Something on its way to a flow; None once it was taken. Prefect may run a flow in a copy of the context."""

    thing: Thing | None

    def take(self) -> Thing | None:
        thing, self.thing = self.thing, None
        return thing


@dataclass
class Prepared:
    """A plan, what it was made from, and what came of it."""

    config: RunConfig
    until: str
    plan: Plan
    console: Console
    account: dict[str, Any] | None = None
    """The run's, once it is done."""


_prepared: ContextVar[_Handed[Prepared] | None] = ContextVar("prepared", default=None)
_asked: ContextVar[_Handed[Question] | None] = ContextVar("asked", default=None)


@contextmanager
def give_plan(config: RunConfig, until: str, plan: Plan, console: Console) -> Iterator[Prepared]:
    """Until the block ends, the next `curate(config, until)` does this plan; nothing is listed or resolved twice."""
    ready = Prepared(config, until, plan, console)
    with _handing(_prepared, ready):
        yield ready


@contextmanager
def give_question(question: Question) -> Iterator[None]:
    """Until the block ends, the next `evaluate()` answers this question."""
    with _handing(_asked, question):
        yield


def take_plan(config: RunConfig, until: str) -> Prepared | None:
    """The plan that was prepared for a flow of this configuration, once; None if there is none, as for a deployed run.

    Raises:
        AccountError: What was prepared is the plan of another run.
    """
    handed = _prepared.get()
    ready = handed.take() if handed else None
    if ready is None:
        return None
    if ready.config != config or ready.until != until:
        raise AccountError("the plan that was prepared is not of the configuration that the run was started with")
    return ready


def take_question() -> Question:
    """The question that was asked, once.

    Raises:
        AccountError: There is none.
    """
    handed = _asked.get()
    question = handed.take() if handed else None
    if question is None:
        raise AccountError("evaluate() answers the question that it is given with `give_question`, once")
    return question


@contextmanager
def _handing(where: ContextVar[_Handed[Thing] | None], thing: Thing) -> Iterator[None]:
    token = where.set(_Handed(thing))
    try:
        yield
    finally:
        where.reset(token)
