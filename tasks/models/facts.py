"""What can be told of a model without its weights: its layers, its window, and whether it has attention to measure.

`config.json` alone refuses what no run could score. The rest is found by trial rather than by a table of
architectures: the model is built on the meta device, which allocates nothing, and given a few tokens, with an
attention function of ours that notes who calls it, and for what kind of attention. The scorer's own function is called
the same way and judges a call by the same `read_call`, so what it would stop at is refused here, before any work.
The answer is kept in the cache under the model's digest, so that a second run imports neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from ladm.tasks.errors import ModelError
from ladm.tasks.models.cache import cache_root, read_json, write_json
from ladm.tasks.redact import one_line

if TYPE_CHECKING:
    from ladm.tasks.models.resolve import ResolvedModel

PROBE = "ladm_probe"
PROBE_VERSION = 2  # raised when what the trial finds out changes, so that older notes are not used
PROBE_TOKENS = 8

BEYOND_PLAIN = {
    "softcap": "soft-capped logits",
    "s_aux": "attention sinks",
    "sinks": "attention sinks",
    "position_bias": "a position bias",
    "indices": "sparse attention",
    "block_indices": "sparse attention",
}
"""Arguments by which transformers asks an attention function for more than softmax(q·k·scale), and what they mean."""

PLAIN_KINDS = {"full_attention", "sliding_attention", "attention", "hybrid"}
"""The `layer_types` whose attention calls say all about themselves; a "hybrid" layer has full attention and more."""

ATTENTION_FREE = {"falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm"}
ENCODERS = {
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "esm", "eurobert",
    "funnel", "longformer", "modernbert", "mpnet", "nomic_bert", "roberta", "xlm-roberta", "xlm-roberta-xl",
}  # fmt: skip
ENCODER_DECODERS = {"bart", "led", "m2m_100", "marian", "mbart", "mt5", "pegasus", "t5", "umt5", "whisper"}


@dataclass(frozen=True)
class ModelFacts:
    """What scoring needs to know of a model before its weights are loaded."""

    model_type: str
    """The architecture's name in `config.json`."""
    n_layers: int
    """Decoder layers of any kind."""
    attention_layers: tuple[int, ...]
    """0-based layers whose full (not sliding) causal attention goes through `AttentionInterface`; may be empty."""
    sliding_layers: tuple[tuple[int, int], ...]
    """(layer, reach): a row of the layer sees its own key and the reach − 1 before it."""
    max_positions: int | None
    """The longest window the model was made for, in tokens; None where its config names no limit."""
    vocab_size: int
    """Token ids run from 0 to one less."""

    def whole_layers(self, length: int) -> list[int]:
        """The layers, ascending, in which a row sees all before it in a window of `length` tokens.

        A sliding layer that reaches back at least that far is full attention in effect.
        """
        return sorted([*self.attention_layers, *(layer for layer, reach in self.sliding_layers if reach >= length)])


def model_facts(resolved: ResolvedModel) -> ModelFacts:
    """Finds out whether, and in which layers, a model has attention to measure.

    Args:
        resolved: the model, as `resolve_model` gives it.

    Returns:
        The facts. `attention_layers` and `sliding_layers` are not both empty.

    Raises:
        ModelError: `config.json` is damaged, the architecture is unknown to `transformers` or needs remote code, or
            its attention cannot be reached or is not plain causal attention (`read_call`).
    """
    config = read_config(resolved)
    if reason := refusal(config):
        raise ModelError(f"scorer.model: {resolved.reference} {reason}")
    name = f"{resolved.digest}-{version('transformers')}-{PROBE_VERSION}.json"
    memo = cache_root() / "facts" / name
    known = read_json(memo)
    with contextlib.suppress(TypeError, KeyError):
        if known is not None:
            layers = {
                "attention_layers": tuple(known["attention_layers"]),
                "sliding_layers": tuple(map(tuple, known["sliding_layers"])),
            }
            return ModelFacts(**{**known, **layers})
    facts = _facts_by_trial(resolved)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
        write_json(memo, asdict(facts))
    return facts


def read_config(resolved: ResolvedModel) -> dict[str, Any]:
    """The model's `config.json`.

    Raises:
        ModelError: it is not a JSON object with a `model_type`.
    """
    path = resolved.path / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"scorer.model: {path} is damaged: {one_line(str(error))}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"scorer.model: {path} is damaged: it names no model_type")
    return config


def refusal(config: dict[str, Any]) -> str | None:
    """Why a config says, by itself, that its model cannot be scored; None where it does not say so."""
    kind = config["model_type"]
    if kind in ATTENTION_FREE:
        return f"is a {kind} model: it has no attention to measure"
    if config.get("is_encoder_decoder") is True or kind in ENCODER_DECODERS:
        return f"is an encoder-decoder model ({kind}): it has no causal attention over one text to measure"
    if kind in ENCODERS and config.get("is_decoder") is not True:
        return f"is an encoder model ({kind}): its attention is not causal, so there is nothing to measure"
    return None


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps `transformers`' warnings and its bar for loaded weights off stderr for a while.

    What matters of the warnings ends up in our own error, and a run draws bars of its own.
    """
    from transformers.utils import logging  # noqa: PLC0415

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _facts_by_trial(resolved: ResolvedModel) -> ModelFacts:
    """`model_facts`, by building the model without weights and running it."""
    import torch  # noqa: PLC0415
    from transformers import AttentionInterface, AutoConfig, AutoModel, __version__  # noqa: PLC0415

    def cannot(what: str, error: Exception) -> ModelError:
        reason = one_line(str(error) or type(error).__name__)[:300]
        return ModelError(f"scorer.model: {what} {resolved.reference}: {reason}")

    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(resolved.path, trust_remote_code=False, local_files_only=True)
            text = config.get_text_config()
            n_layers, vocab_size = int(text.num_hidden_layers), int(text.vocab_size)
        except Exception as error:  # transformers raises many kinds
            raise cannot(f"transformers {__version__} cannot read the config.json of", error) from error
        if reason := refusal({**config.to_dict(), "model_type": config.model_type}):
            raise ModelError(f"scorer.model: {resolved.reference} {reason}")
        AttentionInterface.register(PROBE, _note_caller)
        _calls.seen = []
        try:
            with torch.device("meta"), torch.no_grad():
                # bfloat16: on the meta device the fused expert layers of mixture models take nothing else.
                model = AutoModel.from_config(
                    config, attn_implementation=PROBE, dtype=torch.bfloat16, trust_remote_code=False
                ).eval()
                model(input_ids=torch.zeros(1, PROBE_TOKENS, dtype=torch.long), use_cache=False)
        except KeyError as error:
            if PROBE not in str(error):
                raise cannot(f"transformers {__version__} cannot run", error) from error
            _calls.seen = []  # the architecture picks from a table of its own, which ours is not in
        except Exception as error:
            raise cannot(f"transformers {__version__} cannot run", error) from error
        calls, _calls.seen = _calls.seen, []

    # A vision tower's or a shared block's attention has no number among the decoder's layers: not measurable.
    reaches = {call.layer: call.reach for call in calls if call.layer is not None and 0 <= call.layer < n_layers}
    if reason := _refusal_of_calls(calls, reached=bool(reaches)):
        raise ModelError(f"scorer.model: {resolved.reference} is a {config.model_type} model {reason}")
    return ModelFacts(
        model_type=config.model_type,
        n_layers=n_layers,
        attention_layers=tuple(sorted(layer for layer, reach in reaches.items() if reach is None)),
        sliding_layers=tuple(sorted((layer, reach) for layer, reach in reaches.items() if reach is not None)),
        max_positions=getattr(text, "max_position_embeddings", None),
        vocab_size=vocab_size,
    )


class AttentionCall(NamedTuple):
    """What one call of an attention function asks for."""

    layer: int | None
    """The layer's number, where its module knows it."""
    causal: bool
    reach: int | None
    """Of a sliding layer: the keys that a row sees, its own among them."""
    beyond: str | None
    """In words: what it asks for beyond plain causal attention."""


def read_call(module: Any, attention_mask: Any, options: dict[str, Any]) -> AttentionCall:
    """Reads a call of an attention function, as transformers' `AttentionInterface` makes it.

    Args:
        module: the attention layer that calls.
        attention_mask: the mask it passes. For an implementation that transformers does not know it makes none, so a
            mask is of the model's own making.
        options: the call's other keyword arguments.
    """
    layer = getattr(module, "layer_idx", None)
    causal = options.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    config = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None) or []
    kind = kinds[layer] if layer is not None and 0 <= layer < len(kinds) else None
    reach = options.get("sliding_window")
    if reach is None and kind == "sliding_attention":  # some models (Qwen2-MoE) tell only the mask
        reach = getattr(config, "sliding_window", None)
    beyond = next((what for name, what in BEYOND_PLAIN.items() if options.get(name) is not None), None)
    if attention_mask is not None:
        beyond = "a mask of its own"
    elif kind is not None and kind not in PLAIN_KINDS:
        beyond = f"layers of {kind.replace('_', ' ')}"
    return AttentionCall(layer, bool(causal), reach, beyond)


def _refusal_of_calls(calls: list[AttentionCall], *, reached: bool) -> str | None:
    """What in the calls of attention forbids scoring the model, as the end of a sentence; None: nothing."""
    if not reached:
        return "and none of its layers has attention that transformers' AttentionInterface reaches"
    if not all(call.causal for call in calls):
        return "whose attention is not causal, so there is nothing to measure"
    if beyond := next((call.beyond for call in calls if call.beyond), None):
        return f"whose attention has {beyond}, which no formula covers; use another model"
    return None


class _Calls(threading.local):
    """Each call of attention in the trial that this thread runs."""

    def __init__(self) -> None:
        self.seen: list[AttentionCall] = []


_calls = _Calls()


def _note_caller(
    module: Any, query_BHLD: Any, key_BKLD: Any, value_BKLD: Any, attention_mask: Any, **options: Any
) -> tuple[Any, None]:
    """An attention function that computes nothing: it notes who called for what, and gives back the right shape.

    B windows, H query heads, K key heads, L tokens, D width of a head (values may have another than keys).
    """
    _calls.seen.append(read_call(module, attention_mask, options))
    B, H, L, _ = query_BHLD.shape
    return value_BKLD.new_empty(B, L, H, value_BKLD.shape[-1]), None
