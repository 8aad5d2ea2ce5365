"""What a command prepared for the flow that it starts, since a Prefect flow's parameters would have to be JSON.

In a module of its own: Ray and Dask send the flow's function to their workers by value, with all that it names, and a
context variable cannot be sent. A module is sent by its name.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ladm.flows.console import Console
    from ladm.flows.dag.plan import Plan
    from ladm.flows.evaluation.request import Question

prepared: ContextVar[tuple[Plan, Console] | None] = ContextVar("prepared", default=None)
"""For `curate`: the plan, so that nothing is listed or resolved twice. A deployed run has none."""
asked: ContextVar[Question | None] = ContextVar("asked", default=None)
"""For `evaluate`: the question that it is to answer."""
