"""What a row of the table of stages can say: the inputs of its jobs, their views, and what a run does with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from ladm.flows.config import RunConfig
from ladm.flows.dag.plan import Plan
from ladm.tasks.job import Job, Stage
from ladm.tasks.manifest import Manifest, Shard
from ladm.tasks.reading.sources import ListedFile


@dataclass(frozen=True)
class Take:
    """Inputs of a row's jobs.

    Attributes:
        role: What the stage calls them. Without a name they are waited for, and are no inputs.
        of: The row whose shards they are. If a run does not have that row, the role has no shards.
        rather: A row whose shards are taken in the place of these, in a run that has it.
        how: `each`: one job for the shards of one lineage, and none where there is no shard. `own`: the shards of the
            same lineage. `all`: the shards of the whole run, once all of them are there, ordered by key.
        files: Takes that row's files, which are the end of the road for others, in place of its shards.
        ending: Takes of the files those whose paths end so.
        when: Whether a run takes them at all.
    """

    role: str
    of: str
    how: Literal["each", "own", "all"]
    files: bool = False
    ending: str = ""
    rather: str = ""
    when: Callable[[RunConfig], bool] = lambda config: True


@dataclass(frozen=True)
class View:
    """A table that `sql/views.sql` reads: the shards of a stage, or its files.

    Attributes:
        name: The table's.
        schema: Of its rows.
        files: It holds the stage's files.
        ending: Of the files those whose paths end so.
        added: Columns that earlier versions wrote without, and what then stands in them.
    """

    name: str
    schema: pa.Schema
    files: bool = False
    ending: str = ""
    added: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        stage: Its function, its name, its version, and the roles of its inputs.
        scope: A job is of one source file, of the shards of one lineage, or of the whole run.
        takes: The inputs of its jobs.
        asks: What its jobs are given beside their inputs.
        files: The files that its jobs read: for each job one, or several that are read together (`scope: source file`).
        units: What its counts count, and what it passes on.
        asked: Whether a run has it.
        asked_by: The settings that ask for it, where not all runs have it.
        receives: The stage whose records it gets, for the account; of several, the first that the run has.
        passes_rows: What it passes on are the rows of its shards, of another unit than its counts.
        needs: What it needs of the model.
        holds_model: Its jobs run where the model is, and their progress counts windows.
        is_result: It comes after all shards are done, and is not begun where nothing is left, or too much was lost.
        is_product: Its files are read when no job is left.
        named: Its own name, where its stage has several rows.
        along_with: A run has it if it has that stage, and nobody can ask for it as the last one.
        shares_pass_of: Its jobs are begun after those of that row for the same shard, which may do them in one pass.
        takes_over: What an earlier job of the same settings found of the same windows is taken over from it.
        folder: Where its data lies in the store; the stage's name when not given.
        shown: What a terminal's bar counts; nothing: no bar.
        views: What `ladm sql` shows of it.
        published: Its shards or files, those whose paths end so, and their name in the run's folder, where they have
            a fixed one.
        begins_lineages: Each of its shards goes through the rows of scope `shard` on its own.
        serves: A row whose result is made once; this one's jobs are done only where the store does not have that yet.
        settles: What the plan of the run is, once its job is done.
        parts: Of a job's shards that belong to one lineage each: the key of an input → its shard.
    """

    stage: Stage
    scope: Literal["source file", "shard", "run"]
    takes: tuple[Take, ...] = ()
    asks: Callable[..., Any] = lambda plan: []
    files: Callable[[Plan], Sequence[Sequence[ListedFile]]] = lambda plan: []
    units: tuple[str, str] = ("documents", "documents")
    asked: Callable[[RunConfig], bool] = lambda config: True
    asked_by: str = ""
    receives: tuple[str, ...] = ()
    passes_rows: bool = False
    needs: Literal["", "tokenizer", "weights"] = ""
    holds_model: bool = False
    is_result: bool = False
    is_product: bool = False
    named: str = ""
    along_with: str = ""
    shares_pass_of: str = ""
    takes_over: bool = False
    folder: str = ""
    shown: Literal["", "shards", "jobs", "windows"] = "shards"
    views: tuple[View, ...] = ()
    published: tuple[tuple[Literal["shards", "files"], str, str], ...] = ()
    begins_lineages: bool = False
    serves: str = ""
    settles: Callable[[Plan, Manifest], Plan] | None = None
    parts: Callable[[Job, Manifest], dict[str, Shard]] | None = None

    @property
    def name(self) -> str:
        """The row's own name; but for `named` the stage's."""
        return self.named or self.stage.name

    @property
    def made_once(self) -> bool:
        """Whether what the store has of it holds, whatever its inputs have become."""
        return bool(self.stage.unkeyed)

    @property
    def stored_in(self) -> str:
        """Its folder in the store."""
        return self.folder or self.stage.name
