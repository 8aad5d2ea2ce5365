"""Shared fixtures: a Prefect of our own, a tiny model with a tokenizer, a tiny corpus, and the CLI in this process.

Environment first: the tests must never touch the Prefect database of the user.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

_home = Path(tempfile.mkdtemp(prefix="ladm-tests-"))
os.environ["PREFECT_HOME"] = str(_home / "prefect")
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # the other cores belong to the other workers
    os.environ["OMP_NUM_THREADS"] = "1"
for _name in ("LADM_STORE", "PREFECT_API_URL"):
    os.environ.pop(_name, None)

import pytest  # noqa: E402

from ladm.flows.orchestration.environment import quiet_prefect  # noqa: E402
from ladm.flows.overrides import set_value, setting  # noqa: E402
from ladm.tasks.manifest import Shard  # noqa: E402

quiet_prefect(_home)

SHARED = Path(__file__).parents[1] / ".." / "shared"
WORDS = [
    *("river", "stone", "window", "garden", "letter", "evening", "captain", "silver", "harbour", "morning"),
    *("winter", "kitchen", "thunder", "marble", "orchard", "lantern", "quarry", "meadow", "velvet", "compass"),
]


def sentence(random_words: random.Random, words: int) -> str:
    """A line of made-up prose."""
    return " ".join(random_words.choice(WORDS) for _ in range(words)).capitalize() + ".\n"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a byte-level BPE tokenizer, as a Hugging Face folder; context 2,048."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([sentence(random.Random(1), 2000)], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


class Corpus(NamedTuple):
    """A tiny corpus on disk and the settings that run it with the tiny model."""

    folder: Path
    settings: list[str]

    def values(self, store: Path) -> dict[str, Any]:
        """Its settings as the values of a configuration."""
        values: dict[str, Any] = {"store": str(store)}
        for one in self.settings:
            set_value(values, *setting(one))
        return values


def write_jsonl(path: Path, domain: str, seed: int, lengths: list[int]) -> None:
    """One document a length (in words) in the Pile's format."""
    words = random.Random(seed)
    lines = [
        json.dumps({"text": sentence(words, length), "meta": {"pile_set_name": domain, "license": "CC0"}})
        for length in lengths
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def corpus(tmp_path: Path, tiny_model: Path) -> Corpus:
    """Two files, two domains, nine documents; seven fill a window of 256 tokens."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_jsonl(folder / "letters.jsonl", "Letters", 1, [300, 400, 500, 600, 5])
    write_jsonl(folder / "poems.jsonl", "Poems", 2, [350, 450, 550, 60])
    settings = {
        "sources": f"{folder}/*.jsonl",
        "window.length": 256,
        "scorer.model": tiny_model,
        "scorer.span": 16,
        "scorer.d_afs": 2,
        "scorer.d_cds": 2,
        "scorer.layers": "all",
        "select.budget_tokens": 2000,
        "execution.retries": 0,
        "execution.retry_seconds": 0,
    }
    return Corpus(folder, [f"{name}={value}" for name, value in settings.items()])


class Answer(NamedTuple):
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The run record that `ladm run --json` printed."""
        record: dict[str, Any] = json.loads(self.out)
        return record


@pytest.fixture
def ladm(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command of the CLI in this process."""
    from ladm.flows.cli import main

    def call(*arguments: object) -> Answer:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return call


def run_arguments(corpus: Corpus, store: Path, *more: str) -> list[str]:
    """The arguments of `ladm run --json` on the tiny corpus; later settings win."""
    settings = [argument for setting in [*corpus.settings, *more] for argument in ("--set", setting)]
    return ["run", "--json", "--store", str(store), *settings]


def by_role(shards: Iterable[Shard], **roles: str) -> dict[str, list[Shard]]:
    """The inputs of a job: role → the shards that lie in the folder of that name, in their order."""
    found = list(shards)
    return {role: [shard for shard in found if shard.path.startswith(f"{folder}/")] for role, folder in roles.items()}


def gated_calibration(model: Path, length: int, span: int, threshold: float = 1e6) -> Any:
    """A calibration of both layers of the tiny model, with a gate that takes a window's distance as it comes."""
    from ladm.tasks.models.resolve import resolve_model
    from ladm.tasks.scorers.calibration import Calibration, ProfileWeights
    from ladm.tasks.scorers.distance_profile import FEATURES
    from ladm.tasks.scorers.gate import COLUMNS, Gate

    layers, heads = (0, 1), 4
    size = len(layers) * len(FEATURES) + len(COLUMNS)
    weights = tuple(tuple(tuple(0.1 for _ in FEATURES) for _ in range(heads)) for _ in layers)
    gate = Gate(
        layers=layers,
        mean=(0.0,) * size,
        scale=(1.0,) * size,
        whitening=tuple((0.0,) * place + (1.0,) for place in range(size)),
        whitening_of_text=tuple((0.0,) * place + (1.0,) for place in range(len(COLUMNS))),
        weights=(1.0, 0.0),
        centre=0.0,
        threshold=threshold,
    )
    return Calibration(
        model=str(model),
        model_digest=resolve_model(str(model)).digest,
        window_length=length,
        span=span,
        d_afs=2,
        d_cds=2,
        layers=layers,
        ablation="none",
        dependency=ProfileWeights(layers=layers, weights=weights),
        gate=gate,
    )
