"""ladm: long-context data curation by the attention of a small language model.

    import ladm

    run = ladm.run("config.yaml", window={"length": 4096})     # the DAG once; ladm.run() takes the bundled sample
    run.ranking().to_pandas()                                  # so do polars, Arrow and DuckDB
    ladm.open("ladm-store").sql("select domain, avg(cds) from scores group by 1")
    ladm.plan("config.yaml").seconds                           # what a run would do and take, with nothing done
    ladm.score(["a long text …"], window=1024)                 # no store, no run
    ladm.curate("config.yaml")                                 # in a Prefect flow of your own: a subflow

Importing it loads nothing else: each name is loaded when it is first used. The code lies in three subpackages: `flows`
is what runs, `tasks` is what a stage computes, `sql` is the SQL of the stages and views.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ladm.flows.config import RunConfig as Config
    from ladm.flows.python.configuration import config_of as config
    from ladm.flows.python.heatmap import Heatmap
    from ladm.flows.python.opened import Run
    from ladm.flows.python.opened import open_run as open  # noqa: A004
    from ladm.flows.python.running import Evaluated, FailedRunError, curate, evaluate, plan, run
    from ladm.flows.python.scoring import Scores, score
    from ladm.flows.python.table import Table
    from ladm.tasks.errors import UserError

__all__ = [
    "Config",
    "Evaluated",
    "FailedRunError",
    "Heatmap",
    "Run",
    "Scores",
    "Table",
    "UserError",
    "__version__",
    "config",
    "curate",
    "evaluate",
    "open",
    "plan",
    "run",
    "score",
]

_PLACES = {
    "Config": "ladm.flows.config:RunConfig",
    "Evaluated": "ladm.flows.python.running:Evaluated",
    "FailedRunError": "ladm.flows.python.running:FailedRunError",
    "Heatmap": "ladm.flows.python.heatmap:Heatmap",
    "Run": "ladm.flows.python.opened:Run",
    "Scores": "ladm.flows.python.scoring:Scores",
    "Table": "ladm.flows.python.table:Table",
    "UserError": "ladm.tasks.errors:UserError",
    "config": "ladm.flows.python.configuration:config_of",
    "curate": "ladm.flows.python.running:curate",
    "evaluate": "ladm.flows.python.running:evaluate",
    "open": "ladm.flows.python.opened:open_run",
    "plan": "ladm.flows.python.running:plan",
    "run": "ladm.flows.python.running:run",
    "score": "ladm.flows.python.scoring:score",
}
"""Name → where it is defined."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        value: Any = version("ladm")
    elif name in _PLACES:
        module, _, defined = _PLACES[name].partition(":")
        value = getattr(importlib.import_module(module), defined)
    else:
        raise AttributeError(f"module 'ladm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
