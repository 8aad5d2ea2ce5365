"""The windows that the gate's verdict is tested on, and what was measured of them.

Real: the first 1,024 tokens of every whole document of the bundled sample. Junk: one text of each kind (`junk.py`),
made of those documents, the domains by turns. All that a calibration's gate and dependency read of them lies in
tests/data/gate-1024.npz, so that the tests need no model. To measure anew, after a change of the sample, of the makers
of junk or of what is measured:

    python tests/scorers/gate_windows.py

Of coherence the features are kept, not the attention of all pairs of cells, which would fill megabytes: they are those
of the shipped calibration's weights, whose digest lies beside them.

Dimensions in names: W windows, L tokens, N layers, H heads, F features of the profile, E features of coherence, C
columns of the text.
"""

from __future__ import annotations

import hashlib
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard

import ladm.flows.sample
from ladm.tasks.evaluation.contrast_set import JUNK, Coder, junk_source
from ladm.tasks.evaluation.junk import junk_ids
from ladm.tasks.evaluation.passages import SourceWindow
from ladm.tasks.models.resolve import ResolvedModel, resolve_model
from ladm.tasks.scorers.calibration import Calibration
from ladm.tasks.scorers.coherence import Coherence, Seen, log_shares
from ladm.tasks.scorers.text import NAMES, text_columns
from ladm.tasks.tokenizing.decoding import decoder_of
from ladm.tasks.tokenizing.tokenizer import load_tokenizer
from ladm.tasks.tokenizing.windows import WindowConfig, cut_documents

FILE = Path(__file__).parents[1] / "data" / "gate-1024.npz"
LENGTH = 1024
LAYERS = (14, 15, 16, 17, 18)
REAL = "whole"
SEED = 18
_OTHERS = 4  # documents of the domain that a text of junk takes words from, beside its own


class Text(NamedTuple):
    """A window."""

    name: str
    """Title of the document, or the kind of junk."""
    domain: str
    kind: str
    ids_l: npt.NDArray[np.int32]


class Measured(NamedTuple):
    """What lies in the file."""

    names: list[str]
    domains: list[str]
    kinds: list[str]
    profile_wnhf: npt.NDArray[np.float32]
    coherent_we: npt.NDArray[np.float64]
    weights: str
    """The digest of the weights that made the features of coherence."""
    text: list[dict[str, float]]
    """Of each window, the columns of the text by name."""


def texts(model: ResolvedModel) -> list[Text]:
    """The real windows, and the junk."""
    tokenizer = load_tokenizer(model)
    coder = Coder.of(tokenizer)
    real = []
    for path in sorted(Path(ladm.flows.sample.__file__).parent.glob("*.jsonl.zst")):
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            records = [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n")]
        for record in records:
            meta = record["meta"]
            (cut,) = cut_documents([record["text"]], tokenizer, WindowConfig(length=LENGTH))
            if cut.windows and meta["kind"] == REAL:
                ids_L = cut.windows[0].input_ids.astype(np.int32)
                real.append(Text(meta["title"], meta["pile_set_name"], REAL, ids_L))
    domains = sorted({one.domain for one in real})
    made = []
    for place, kind in enumerate(JUNK):
        own = [one for one in real if one.domain == domains[place % len(domains)]]
        base, *others = (SourceWindow(one.name, one.domain, one.ids_l) for one in own[place % 2 :])
        source = junk_source(base, others[:_OTHERS], coder)
        made.append(Text(kind, base.domain, kind, junk_ids(kind, source, SEED)))
    return [*real, *made]


def shipped() -> Calibration:
    """The calibration of the package."""
    name = f"smollm2-135m-{LENGTH}.json"
    return Calibration.model_validate_json((files("ladm.tasks.scorers") / "calibrations" / name).read_bytes())


def digest_of(coherence: Coherence) -> str:
    """What names the weights of pairs and of topics."""
    weights = coherence.model_dump_json(include={"pairs", "topics"})
    return hashlib.sha256(weights.encode()).hexdigest()


def measure(model: ResolvedModel, windows: list[Text]) -> list[tuple[Any, Any, dict[str, float]]]:
    """Of each window its profile_NHF, its features of coherence and the columns of its text, by the model."""
    import torch

    from ladm.tasks.scorers.attention import one_pass
    from ladm.tasks.scorers.calculator import load_calculator
    from ladm.tasks.scorers.distance_profile import profile_features, profile_plan
    from ladm.tasks.scorers.ladm import LadmConfig
    from ladm.tasks.scorers.vocabulary import vocabulary_features

    calculator = load_calculator(model.path, LadmConfig(dtype="float32", device="cpu"))
    plan, decode, found = profile_plan(LENGTH), decoder_of(load_tokenizer(model)), []
    coherence = shipped().coherence
    assert coherence is not None
    layers = coherence.pairs.layers
    assert set(LAYERS) <= set(layers)
    for window in windows:
        ids_BL = torch.as_tensor(window.ids_l[None].astype(np.int64))
        passed = one_pass(calculator, {plan: layers}, ids_BL, states_of=shipped().weights.states_of)
        assert passed.states is not None
        profile_NHF = profile_features(plan, passed.pfs[plan])[0][[layers.index(layer) for layer in LAYERS]]
        share_NHP = log_shares(plan, passed.pfs[plan][:, 0])
        seen = Seen(share_NHP, vocabulary_features(window.ids_l), passed.states[0])
        coherent_E = coherence.features(plan, seen)
        found.append((profile_NHF, coherent_E, text_columns(window.ids_l, decode(window.ids_l))))
    return found


def stored() -> Measured:
    """What was measured, as it lies in the file."""
    with np.load(FILE) as file:
        columns = [dict(zip(NAMES, row, strict=True)) for row in file["text_WC"].tolist()]
        named = (file[name].tolist() for name in ("names", "domains", "kinds"))
        profile_WNHF = file["profile_WNHF"].astype(np.float32)
        return Measured(*named, profile_WNHF, file["coherent_WE"], str(file["weights"]), columns)


def main() -> None:
    """Measure all windows and write the file."""
    model = resolve_model("embedded", print)
    windows = texts(model)
    found = measure(model, windows)
    coherence = shipped().coherence
    assert coherence is not None
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        FILE,
        names=[one.name for one in windows],
        domains=[one.domain for one in windows],
        kinds=[one.kind for one in windows],
        profile_WNHF=np.stack([profile for profile, *_ in found]).astype(np.float16),
        coherent_WE=np.stack([coherent for _, coherent, _ in found]),
        weights=digest_of(coherence),
        text_WC=np.array([[columns[name] for name in NAMES] for *_, columns in found]),
    )
    print(f"{len(windows)} windows, {FILE.stat().st_size / 1024:.0f} KiB: {FILE}")


if __name__ == "__main__":
    main()
