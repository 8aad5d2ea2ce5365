"""Configuration: what is accepted, and the one line that says what is wrong with the rest."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer, Corpus, run_arguments
from pydantic import ValidationError

from ladm.flows.config import RunConfig, load_config
from ladm.flows.dag.settled_scorer import with_calibration
from ladm.tasks.errors import ConfigError
from ladm.tasks.exporters.formats import EXPORTERS
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.settings import Settings

Cli = Callable[..., Answer]


def test_the_sample_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LADM_STORE", raising=False)
    config = load_config()
    assert config.store == "ladm-store"
    assert config.scorer.model == "embedded"
    assert Path(config.sources[0].uri).parent.is_dir()


def test_whatever_is_changed_of_the_sample_ranks_by_the_calibration_that_fits() -> None:
    config = load_config()
    assert (config.scorer.layers, config.scorer.span) == ("fitting", 32)
    assert load_config(overrides=["select.budget_tokens=5"]).scorer == config.scorer
    for override in ("scorer.span=16", "scorer.formula=paper", "scorer.ablation=none", "scorer.model=./other"):
        scorer = load_config(overrides=[override]).scorer
        assert scorer.layers == "fitting"
    assert load_config(overrides=["scorer.layers=all", "window.length=600"]).scorer.span == 32
    assert load_config(overrides=["scorer.model=./other", "scorer.layers=[3]"]).scorer.layers == (3,)


@pytest.mark.parametrize(
    ("length", "layers", "span"), [(2048, "calibrated", 64), (8192, "calibrated", 256), (512, "own", 16)]
)
def test_other_windows_of_the_sample_have_spans_of_their_own(length: int, layers: str, span: int) -> None:
    config = load_config(overrides=[f"window.length={length}"])
    settled, _ = with_calibration(config, resolve_model("embedded"))
    assert (settled.scorer.layers, settled.scorer.span) == (layers, span)


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
        ("colour=red", "colour: unknown key; known keys: sources, store"),
        ("Window.length=5", "Window: unknown key; did you mean 'window'?"),
        ("scorer.Span=5", "scorer.Span: unknown key; did you mean 'span'?"),
        ("window.length=many", "window.length: input should be a valid integer"),
        ("select.budget_tokens=-5", "select.budget_tokens: input should be greater than 0, not -5"),
        ("sources.0.url=x", "sources.0.url: unknown key; did you mean 'uri'?"),
        ("sources=[]", "sources: list should have at least 1 item"),
        ("sources.7.uri=x", "--set: sources.7.uri: '7' is not an entry of a list of 1, counted from 0"),
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
    ("setting", "field"),
    [
        ("export=[{format: parquet, shuffle: false}]", "export.0.shuffle"),
        ("export=[{format: npy, pack: {length: true}}]", "export.0.pack.length"),
        ("window.length=on", "window.length"),
        ("select.gate=true", "select.gate"),
        ("select.replay={share: yes}", "select.replay.share"),
        ("select.quotas=[{domain: x, bucket: [false, 4], tokens: 4}]", "select.quotas.0.bucket"),
        ("deduplicate={near: {seed: no}}", "deduplicate.near.seed"),
        ("filters=[{repetition: {top_2_gram: off}}]", "filters.0.repetition.top_2_gram"),
        ("scorer.beside={random: {seed: true}}", "scorer.beside.random.seed"),
        ("scorer.layers=[true, 3]", "scorer.layers"),
        ("max_quarantined=false", "max_quarantined"),
        ("execution.retries=false", "execution.retries"),
        ("sources=[{uri: a, max_record_bytes: true}]", "sources.0.max_record_bytes"),
    ],
)
def test_true_and_false_are_no_numbers_and_no_seeds(setting: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(field)}: true and false .* are not numbers; give a number"):
        load_config(overrides=[setting])


def test_true_and_false_stay_what_they_are_where_they_are_meant() -> None:
    settings = ["deduplicate={exact: false, near: true}", "select.gate=off", "filters=[{repetition: true}]"]
    config = load_config(overrides=settings)
    assert config.deduplicate is not None
    assert (config.deduplicate.exact, config.deduplicate.near is None, config.select.gate) == (False, False, "off")
    assert load_config(overrides=["deduplicate={near: false}"]).deduplicate != config.deduplicate
    given = {"datatrove": "a.b.C", "arguments": {"strict": True}}
    assert load_config(overrides=[f"filters=[{given}]"]).filters[0].arguments == {"strict": True}


def test_no_number_of_the_configuration_takes_a_boolean() -> None:
    """Whatever settings there will be."""

    def settings_below(kind: type[Settings]) -> set[type[Settings]]:
        return {kind}.union(*(settings_below(one) for one in kind.__subclasses__()))

    seen = 0
    for model in settings_below(RunConfig) | settings_below(Settings):
        for name, field in model.model_fields.items():
            if field.annotation in (int, float, int | None, float | None):
                seen += 1
                with pytest.raises(ValidationError) as refused:
                    model.model_validate({name: True})
                assert (name,) in [error["loc"] for error in refused.value.errors() if "not numbers" in error["msg"]]
    assert seen > 40


def test_every_whole_number_of_the_configuration_is_read_in_the_same_ways() -> None:
    """Whatever settings there will be, on their own and in lists: alike taken, or alike refused."""

    def settings_below(kind: type[Settings]) -> set[type[Settings]]:
        return {kind}.union(*(settings_below(one) for one in kind.__subclasses__()))

    def outcome(model: type[Settings], name: str, value: object) -> object:
        try:
            return getattr(model.model_validate({name: value}), name)
        except ValidationError as refused:
            return sorted((error["loc"], error["type"]) for error in refused.errors())

    seen = 0
    for model in settings_below(RunConfig) | settings_below(Settings):
        for name, field in model.model_fields.items():
            if field.annotation in (int, int | None, list[int], tuple[int, ...]):
                several = field.annotation in (list[int], tuple[int, ...])
                for number in (4, 1000, 10**6):
                    plain = outcome(model, name, [number] if several else number)
                    for written in (
                        f"{number:_}",
                        f"{number:.1e}",
                        f"{number}.0",
                        f"{number // 1000 or number / 1000}e3",
                    ):
                        seen += 1
                        assert outcome(model, name, [written] if several else written) == plain, (model, name, written)
    assert seen > 300


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("select.budget_tokens=18446744073709551615", "select.budget_tokens"),
        ("select.budget_tokens=9223372036854775808", "select.budget_tokens"),
        ("select.budget_tokens=999999999999999999999", "select.budget_tokens"),
        ("select.budget_tokens='9223372036854775808'", "select.budget_tokens"),
        ("select.budget_tokens=1e30", "select.budget_tokens"),
        ("select.budget_tokens=10000000T", "select.budget_tokens"),
        ("select.min_tokens_per_domain=1e19", "select.min_tokens_per_domain"),
        ("export=[{format: parquet, shuffle: -99999999999999999999}]", "export.0.shuffle"),
        ("sources=[{uri: a, max_record_bytes: 1e19}]", "sources.0.max_record_bytes"),
    ],
)
def test_what_duckdb_cannot_hold_is_refused_at_once(setting: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(field)}: .* is too great; it is at most"):
        load_config(overrides=[setting])


def test_what_duckdb_holds_is_taken() -> None:
    settings = ["select.budget_tokens=1000000000000000000", f"export=[{{format: parquet, shuffle: {2**63 - 1}}}]"]
    config = load_config(overrides=settings)
    assert (config.select.budget_tokens, config.export[0].shuffle) == (10**18, 2**63 - 1)


@pytest.mark.parametrize("setting", ["select.gate=.inf", "select.gate=.nan"])
def test_what_is_not_finite_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="give a finite one"):
        load_config(overrides=[setting])


def test_a_wait_of_more_than_a_day_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^execution.retry_seconds: .* 86400"):
        load_config(overrides=["execution.retry_seconds=1e20"])


def test_a_million_and_a_billion_may_be_written_in_several_ways() -> None:
    for million in ("1000000", "1_000_000", "'1_000_000'", "1e6", "1E+6", "1.0e+6", "1.0e6", "10e5", "1M", "1 M", "1m"):
        assert load_config(overrides=[f"select.budget_tokens={million}"]).select.budget_tokens == 10**6, million
    for billion in ("1_000_000_000", "1e9", "1B", "1b", "0.001T", "1000M"):
        assert load_config(overrides=[f"select.budget_tokens={billion}"]).select.budget_tokens == 10**9, billion
    select = load_config(
        overrides=[
            "select.quotas=[{domain: x, bucket: [1e3, 4_096], tokens: 2.5M}]",
            "select.allocation=quotas",
            "select.budget_tokens=3e6",
        ]
    ).select
    assert (select.quotas[0].bucket, select.quotas[0].tokens) == ((1000, 4096), 2_500_000)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("select.budget_tokens=1MB", "'1MB' is not a whole number; a million is 1000000, 1_000_000, 1e6, 1M, and a"),
        ("select.budget_tokens=1,000,000", "'1,000,000' is not a whole number; a million is 1000000, 1_000_000, 1e6"),
        ("select.budget_tokens=1e-3", "'1e-3' is not a whole number; give one without a fraction"),
        ("window.length=4M", "window.length: '4M' is not a whole number; a million is 1000000, 1_000_000, 1e6"),
        ("sources=[{uri: a, max_record_bytes: 1GB}]", "sources.0.max_record_bytes: '1GB' is not a whole number"),
    ],
)
def test_other_ways_to_write_a_number_are_refused_with_those_that_work(setting: str, line: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)):
        load_config(overrides=[setting])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "cannot read the configuration (No such file or directory)"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"a: [1", "not valid YAML"),
        (b"- 1", "the configuration is not a mapping"),
        (
            b"window: {length: 256}\nsources: a\nwindow: {length: 9}",
            "lines 1 and 3: the key 'window' stands there twice",
        ),
        (b"sources: a\nwindow:\n  take: all\n  length: 2\n  take: first", "lines 3 and 5: the key 'take' stands"),
        (b"sources: [{uri: a, uri: b}]", "line 1: the key 'uri' stands there twice; leave one"),
        (b"window:\n  length: !!timestamp soon", "line 2: 'soon' is no timestamp"),
        (b"window: {length: !!bool x}", "line 1: 'x' is no bool"),
        (b'sources: [{uri: "a\\uD800"}]', "holds half a character"),
        (b"sources: a\nwindow: {length: 0256}", "line 2: YAML takes '0256' for another number; write 256"),
        (b"sources: a\nwindow: {length: 1:30}", "line 2: YAML takes '1:30' for another number; write it in quotes"),
        (b"sources: &a [*a]", "line 1: an alias holds itself; write out what is meant"),
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


def test_a_key_given_twice_in_a_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set: the value of window .* the key 'length' stands there twice"):
        load_config(overrides=["window={length: 2, take: all, length: 3}"])


@pytest.mark.parametrize("start", ["[x, x]", "{x: [y]}", "some text, long enough to matter when there are many of it"])
@pytest.mark.parametrize("link", ["[{}]", "{{k: [{}]}}", "{{<<: [{}]}}"])
def test_aliases_that_explode_are_refused_at_once(tmp_path: Path, start: str, link: str) -> None:
    lines = [f"a0: &a0 {start}"]
    lines += [f"a{n}: &a{n} {link.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join([*lines, "sources: *a11"]))
    before = time.monotonic()
    with pytest.raises(ConfigError, match=r"line \d+: what its aliases \(\*name\) stand for is more than 100,000 char"):
        load_config(str(path))
    with pytest.raises(ConfigError, match="aliases"):
        load_config(overrides=[f"sources={{{', '.join([*lines, 'uri: *a11'])}}}"])
    assert time.monotonic() - before < 5


def test_aliases_that_stay_small_are_taken_and_share_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "sources:\n- &one {uri: a.jsonl, text: body}\n- {<<: *one, uri: b.jsonl}\n- *one\nwindow: {length: 512}\n"
    )
    config = load_config(str(path), ["sources.0.text=content"])
    assert [(source.uri, source.text) for source in config.sources] == [
        ("a.jsonl", "content"),
        ("b.jsonl", "body"),
        ("a.jsonl", "body"),
    ]


def test_very_many_complaints_stay_one_line_of_some_length() -> None:
    with pytest.raises(ConfigError, match=r"sources\.0: .*; and 9950 more$") as refused:
        load_config(overrides=[f"sources=[{', '.join('1' * 10_000)}]"])
    assert len(str(refused.value)) < 20_000


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


@pytest.mark.parametrize("place", ["{pipe}", "file://{pipe}", "/dev/null", "{link}", "{socket}"])
def test_a_source_that_is_no_regular_file_is_refused(
    place: str, tmp_path: Path, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        name = place.format(**{name: tmp_path / name for name in ("pipe", "link", "socket")})
        for setting, field in (
            (f"sources=[{corpus.folder}/*.jsonl, {name}]", "sources[1].uri"),
            (f"decontaminate.against={name}", "decontaminate.against[0].uri"),
        ):
            answer = ladm(*run_arguments(corpus, tmp_path / "store", setting))
            assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1), answer.err
            assert answer.err.startswith(f"ladm: {field}: '{name}' is not a regular file but a pipe")


@pytest.mark.parametrize(
    "store", ["data:,x", "memory://x", "http://127.0.0.1:9/x", "zip://a", "webhdfs://127.0.0.1:9/x"]
)
def test_a_store_that_keeps_nothing_is_refused(store: str, corpus: Corpus, ladm: Callable[..., Answer]) -> None:
    answer = ladm(*run_arguments(corpus, Path(store)), "--store", store)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith("ladm: store: ")
    assert "give a folder or s3://bucket/prefix" in answer.err


def test_a_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(ConfigError, match="zero byte"):
        load_config("a\0b.yaml")


def test_a_blank_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADM_STORE", " ")
    with pytest.raises(ConfigError, match=r"^LADM_STORE: the name is empty"):
        load_config(overrides=["sources=a"])
