"""Configuration: what is accepted, and the one line that says what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.config import load_config
from ladm.tasks.errors import ConfigError
from ladm.tasks.exporters.formats import EXPORTERS

Cli = Callable[..., Answer]


def test_the_sample_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LADM_STORE", raising=False)
    config = load_config()
    assert config.store == "ladm-store"
    assert config.scorer.model == "embedded"
    assert Path(config.sources[0].uri).parent.is_dir()


def test_the_samples_calibration_is_for_its_own_model_and_setting_only() -> None:
    config = load_config()
    assert config.scorer.layers == "calibrated"
    assert load_config(overrides=["select.budget_tokens=5"]).scorer == config.scorer
    for override in ("window.length=2048", "scorer.span=64", "scorer.formula=paper", "scorer.ablation=none"):
        scorer = load_config(overrides=[override]).scorer
        assert scorer.layers == tuple(range(14, 25))
    assert load_config(overrides=["scorer.d_cds=2"]).scorer.ablation == "no-std"
    assert load_config(overrides=["scorer.ablation=none"]).scorer.ablation == "none"
    assert load_config(overrides=["scorer.layers=all"]).scorer.layers == "all"
    other = load_config(overrides=["scorer.model=./other"]).scorer
    assert (other.layers, other.ablation, other.span) == ("fitting", "none", 32)
    assert load_config(overrides=["scorer.model=./other", "scorer.layers=[3]"]).scorer.layers == (3,)


def test_store_comes_from_the_option_then_the_file_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("sources: x.jsonl\n")
    monkeypatch.setenv("LADM_STORE", "from-environment")
    assert load_config(str(file)).store == "from-environment"
    file.write_text("sources: x.jsonl\nstore: from-file\n")
    assert load_config(str(file)).store == "from-file"
    assert load_config(str(file), store="from-option").store == "from-option"


def test_set_reaches_into_sections_and_lists() -> None:
    config = load_config(
        overrides=["window.length=2048", "sources=[a.jsonl, b.jsonl]", "sources.1.text=body", "export=parquet"]
    )
    assert config.window.length == 2048
    assert [source.uri for source in config.sources] == ["a.jsonl", "b.jsonl"]
    assert config.sources[1].text == "body"
    assert [export.format for export in config.export] == ["parquet"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("window.lenght=5", "window.lenght: unknown key; did you mean 'length'?"),
        ("colour=red", "colour: unknown key; known keys: store, sources"),
        ("Window.length=5", "Window: unknown key; did you mean 'window'?"),
        ("scorer.Span=5", "scorer.Span: unknown key; did you mean 'span'?"),
        ("window.length=many", "window.length: input should be a valid integer"),
        ("select.budget_tokens=-5", "select.budget_tokens: input should be greater than 0, not -5"),
        ("sources.0.url=x", "sources.0.url: unknown key; did you mean 'uri'?"),
        ("sources=[]", "sources: list should have at least 1 item"),
        ("sources.7.uri=x", "--set: sources.7.uri: '7' is no entry of a list of 1, counted from 0"),
        ("export=[parquet, parquet]", "export: a format is named twice; name each once"),
        (
            "export=doc",
            f"export.0: format should be one of {', '.join(EXPORTERS)}, not {{'format': 'doc'}}",
        ),
        ("export=[{format: npy, pack: {lenght: 8}}]", "export.0.pack.lenght: unknown key; did you mean 'length'?"),
        ("export=[{format: parquet, eos: 3}]", "export.0.eos: unknown key; known keys: format, part_bytes, shuffle"),
        ("export=[{format: mds, pakc: 3}]", "export.0.pakc: unknown key; did you mean 'pack'?"),
        ("export=[{format: mds, validation: 1}]", "export.0.validation: input should be less than 1, not 1"),
        ("scorer.layers=up", "scorer.layers: 'up' is not a choice of layers"),
        ("window.length.x=5", "--set: window.length.x leads into a value that has no fields"),
        ("nonsense", "--set: 'nonsense' is not of the form key=value"),
        ("window.length=[", "--set: the value of window.length is not valid YAML: '['"),
    ],
)
def test_one_line_names_the_field_and_the_fix(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(overrides=[override])
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "cannot read the configuration (No such file or directory)"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"a: [1", "not valid YAML"),
        (b"- 1", "the configuration is no mapping"),
        (b"window: {length: 4096}", "sources: missing; give it a value"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, content: bytes | None, line: str) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_config(str(path))
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("window.lenght=5", "window.lenght: unknown key"),
        ("window.length=64", "window.length"),
        ("window.length=4096", "window.length: 4096 is more than the 2048 positions"),
        ("sources=/nowhere/*.jsonl", "sources[0].uri: no file matches '/nowhere/*.jsonl'"),
        ("scorer.model=/nowhere/model", "scorer.model"),
        ("scorer.layers=[5]", "scorer.layers"),
        ("store=/proc/nothing", "store: '/proc/nothing' cannot be written"),
    ],
)
def test_bad_configuration_exits_2_before_any_work(
    tmp_path: Path, corpus: Corpus, ladm: Cli, setting: str, line: str
) -> None:
    store = tmp_path / "store"
    arguments = run_arguments(corpus, store, setting)
    if setting.startswith("store="):
        arguments[arguments.index("--store") + 1] = setting.removeprefix("store=")
    answer = ladm(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.count("\n") == 1, answer.err
    assert answer.err.startswith("ladm: ")
    assert line in answer.err
    assert not (store / "records").exists()


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_here_is_refused_before_any_work(
    tmp_path: Path, corpus: Corpus, ladm: Cli, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    # One GPU at most: for cuda:1 it is there, and no second one.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(device == "cuda:1"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    store, setting = tmp_path / "store", f"scorer.device={device}"
    run = run_arguments(corpus, store, setting)
    text = tmp_path / "text.txt"
    text.write_text("The river and the stone. " * 100)
    for arguments in (
        run,
        [*run, "--until", "score"],
        ["evaluate", *run[2:], "--out", tmp_path / "out"],
        ["score", text, "--model", _model_of(corpus), "--device", device],
    ):
        answer = ladm(*arguments)
        assert (answer.code, answer.out) == (2, ""), answer
        assert answer.err == f"ladm: scorer.device: {device} is not on this machine; set it to auto or cpu\n"
    assert not store.exists()
    assert not (tmp_path / "out").exists()
    assert ladm(*run, "--until", "tokenize").code == 0  # which asks for no device


def test_a_model_without_attention_is_refused(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    folder = tmp_path / "mamba"
    MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)).save_pretrained(
        folder
    )
    (folder / "tokenizer.json").write_bytes((_model_of(corpus) / "tokenizer.json").read_bytes())
    answer = ladm(*run_arguments(corpus, tmp_path / "store", f"scorer.model={folder}"))
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert "scorer.model" in answer.err
    assert "no attention" in answer.err


def _model_of(corpus: Corpus) -> Path:
    (setting,) = [setting for setting in corpus.settings if setting.startswith("scorer.model=")]
    return Path(setting.partition("=")[2])
