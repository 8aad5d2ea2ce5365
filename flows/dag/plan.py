"""A run that has been found possible: all that the DAG has to know before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ladm.flows.config import RunConfig
from ladm.tasks.exporters.interface import ExportConfig
from ladm.tasks.manifest import Shard
from ladm.tasks.models.resolve import ResolvedModel
from ladm.tasks.reading.sources import ListedFile
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.gate import Gate
from ladm.tasks.scorers.ladm import LadmConfig


@dataclass(frozen=True)
class Plan:
    """A run that has been found possible: its configuration, stages, source files and resolved model."""

    config: RunConfig
    until: str
    """The last stage to do."""
    stages: tuple[str, ...]
    """The stages that this run does, in order."""
    files: list[ListedFile]
    model: ResolvedModel | None
    """None when the run ends before a tokenizer is needed."""
    layers: list[int] = field(default_factory=list)
    """The model's layers that make the score, of a run that is still to calibrate all that see the whole window; empty
    when the run ends before scoring."""
    layers_left_out: list[int] = field(default_factory=list)
    """The layers that `scorer.layers: all` does not mean, since they do not see the whole window."""
    calibration: Calibration | None = None
    """What `scorer.layers: calibrated` means; where the run makes its own, None until it is there."""
    benchmarks: list[ListedFile] = field(default_factory=list)
    """The files of `decontaminate.against`, with the entry of the list that each comes from."""
    filters: list[str] = field(default_factory=list)
    """Of each filter of the configuration, what tells it from other versions of itself."""
    exports: list[ExportConfig] = field(default_factory=list)
    """What is exported, with all that a format of tokens needs settled; empty when the run ends before that."""
    notes: list[str] = field(default_factory=list)
    """What the run says first: lines of text."""

    n_layers: int = 0
    """All layers of the model; 0 when the run ends before scoring."""
    calibrated_by: Mapping[str, Shard] = field(default_factory=dict)
    """The files of the store that hold the calibration's `weights` and its `gate`, as far as it has them."""
    addresses: list[Shard] = field(default_factory=list)
    """The file of the store that tells where the source files lie; none where their names do."""
    tokenizers: list[ResolvedModel] = field(default_factory=list)
    """Of each export, the model whose tokenizer it is made with."""

    @property
    def gate(self) -> Gate | None:
        """What tells real text from junk."""
        return self.calibration.gate if self.calibration else None

    @property
    def scorer(self) -> LadmConfig:
        """The scorer's configuration, with what the calibration says in its place."""
        return self.calibration.applied(self.config.scorer) if self.calibration else self.config.scorer
