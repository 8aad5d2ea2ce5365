"""What the data, a query or a model must not be able to do, and what must never be written down."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.ask.query import run_query
from ladm.flows.config import load_config
from ladm.tasks.errors import ConfigError

Cli = Callable[..., Answer]
CANARY = "CANARYdoNOTprintME42"


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secure") / "store"


@pytest.fixture
def filled(shared_store: Path, corpus: Corpus, ladm: Cli) -> Path:
    """A store with one run (made once); for a query's manners its documents are enough."""
    if not shared_store.exists():
        answer = ladm(*run_arguments(corpus, shared_store), "--until", "ingest")
        assert answer.code == 0, answer.err
    return shared_store


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


# -- ladm sql --------------------------------------------------------------------------------------------------

WRITES = [
    "copy (select 1) to '{store}/x.csv'",
    "copy scores to '{outside}/x.parquet' (format parquet)",
    "copy (select * from documents) to '{store}' (format csv, partition_by (domain))",
    "copy ranking from '{store}/x.csv'",
    "export database '{outside}/dump'",
    "attach '{outside}/x.db' as x",
    "attach ':memory:' as x",
    "create table x as select 1",
    "create or replace view scores as select 1",
    "create or replace temp macro f() as 1",
    "create persistent secret s (type s3, key_id 'a', secret 'b')",
    "insert into run_jobs select * from run_jobs",
    "update ranking set selected = true",
    "delete from ranking",
    "drop view ranking",
    "checkpoint",
    "vacuum",
    "with x as (select 1) insert into y from x",
    "prepare p as copy (select 1) to '{store}/x.csv'",
    "explain analyze copy (select 1) to '{store}/x.csv'",
    "select 1; copy (select 1) to '{store}/x.csv'",
    "begin transaction",
]
SETTINGS = [
    "set enable_external_access = true",
    "set allowed_directories = ['/']",
    "set global lock_configuration = false",
    "reset lock_configuration",
    "set variable budget_tokens = 1",
    "set python_enable_replacements = true",
    "pragma memory_limit = '9GB'",
    "pragma enable_profiling",
    "pragma threads = 64",
    "call pragma_version()",
    "select * from query('set threads = 1')",
    "use memory",
]
CALLS = [
    "select * from enable_profiling(format='json', save_location='{store}/profile.json')",
    "from EnAbLe_Profiling(save_location='{store}/profile.json')",
    "select * from system.main.enable_profiling(save_location='{store}/profile.json')",
    "select 1 where exists (from enable_profiling(save_location='{store}/profile.json'))",
    "with x as materialized (from enable_profiling(save_location='{store}/profile.json')) from x",
    "select (select Success from enable_profiling(save_location='{store}/profile.json'))",
    "from range(1), lateral (from enable_profiling(save_location='{store}/profile.json'))",
    "describe select * from enable_profiling(save_location='{store}/profile.json')",
    "select * from enable_logging(storage='file', storage_path='{store}/logs')",
    "select * from enable_logging(storage='file', storage_path='{outside}/logs')",
    "select * from disable_logging()",
    "select * from truncate_duckdb_logs()",
    "select * from checkpoint()",
    "select * from force_checkpoint()",
    "select * from pragma_version()",
    "select * from query('select * from enable_profiling(save_location=''{store}/profile.json'')')",
    "select * from query_table('enable_profiling')",
    "select * from json_execute_serialized_sql(json_serialize_sql('from enable_logging()'))",
    "select json_serialize_plan('from enable_logging()')",
    "select * from read_duckdb('{store}/x.db')",
    "select * from read_csv('{store}/runs/*/run.json', store_rejects = true)",
    "select * from arrow_scan(1, 1, 1)",
    "select * from pandas_scan(1)",
    "select * from python_map_function(1, [1])",
    "select write_log('x')",
    "select nextval('x')",
    "select * from '{store}/x.db'",
    "select " + "1 + " * 900 + "1",
]
EXTENSIONS = [
    "install httpfs",
    "install spatial from 'http://127.0.0.1:9/'",
    "load httpfs",
    "load '{outside}/evil.duckdb_extension'",
    "select * from read_parquet('http://127.0.0.1:9/x.parquet')",
    "select * from 'https://127.0.0.1:9/x.csv'",
    "select * from read_csv('s3://bucket/x.csv')",
    "select * from sqlite_scan('{outside}/x.db', 't')",
    "select * from postgres_scan('host=127.0.0.1 port=9', 'public', 't')",
]
READS = [
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('/etc/passwd')",
    "select * from '/etc/passwd'",
    "select * from read_json_objects('/etc/passwd')",
    "select * from read_parquet('{outside}/secret.parquet')",
    "select * from parquet_metadata('{outside}/secret.parquet')",
    "select * from parquet_schema('{outside}/secret.parquet')",
    "select * from sniff_csv('{outside}/secret.csv')",
    "select * from glob('{outside}/*')",
    "select * from glob('/etc/*')",
    "select * from read_text('{store}/../secret.csv')",
    "select * from read_text('{store}/runs/../../secret.csv')",
    "select * from read_text('{store}-beside/secret.csv')",
    "select * from query('select * from read_text(''/etc/passwd'')')",
    "select * from query_table('/etc/passwd')",
    "select getenv('HOME')",
    "select * from read_text('/proc/self/environ')",
    "select * from secret_table",
]


@pytest.mark.parametrize("query", [*WRITES, *SETTINGS, *CALLS, *EXTENSIONS, *READS])
def test_a_query_can_only_read_the_store(filled: Path, ladm: Cli, query: str) -> None:
    outside = filled.parent
    beside = Path(f"{filled}-beside")
    beside.mkdir(exist_ok=True)
    for folder in (outside, beside):
        (folder / "secret.csv").write_text(f"a,b\n{CANARY},1\n")
    shutil.copy(next((filled / "runs").glob("*/quarantine.parquet")), outside / "secret.parquet")
    before = contents(outside)
    answer = ladm("sql", query.format(store=filled, outside=outside), "--store", filled)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    assert answer.err.startswith("ladm: ")
    assert CANARY not in answer.err
    assert contents(outside) == before


def test_a_query_cannot_have_the_next_one_write(filled: Path) -> None:
    from ladm.flows.ask.query import answer, run_views
    from ladm.flows.ask.shown import newest_run
    from ladm.flows.runs.read import read_record
    from ladm.tasks.errors import QueryError
    from ladm.tasks.storage.store import Store

    store = Store(str(filled))
    record = filled / "runs" / newest_run(store) / "run.json"
    before = contents(filled.parent)
    with run_views(store, read_record(store, newest_run(store))) as connection:
        for query in (
            f"select * from enable_profiling(format='json', save_location='{record}')",
            f"select * from enable_logging(storage='file', storage_path='{filled}/logs')",
        ):
            with pytest.raises(QueryError, match="reads and never writes"):
                answer(connection, query)
            assert answer(connection, "select count(*) as n from documents").to_pylist() == [{"n": 9}]
    assert contents(filled.parent) == before


def test_every_table_function_of_duckdb_is_known_or_refused(filled: Path) -> None:
    """By name, whatever its arguments: nothing that a later DuckDB adds is allowed by itself."""
    import duckdb

    from ladm.tasks.errors import QueryError
    from ladm.tasks.storage.sql_guard import TABLE_FUNCTIONS, check_reads_only

    with duckdb.connect() as connection:
        rows = connection.execute(
            "select distinct function_name from duckdb_functions() where function_type in ('table', 'table_macro')"
        ).fetchall()
        names = {name for (name,) in rows}
        assert names >= TABLE_FUNCTIONS
        for name in names - TABLE_FUNCTIONS:
            with pytest.raises(QueryError):
                check_reads_only(connection, f"select * from {name}()")


def test_a_query_cannot_read_the_programs_own_variables(filled: Path) -> None:
    import pandas as pd

    secret_table = pd.DataFrame({"a": [CANARY]})
    from ladm.tasks.errors import QueryError

    with pytest.raises(QueryError):
        run_query(str(filled), "select * from secret_table")
    assert len(secret_table) == 1


def test_what_a_query_may_do(filled: Path, ladm: Cli) -> None:
    for query in (
        "select count(*) from scores",
        "from ranking select max(score)",
        "with x as (from scores) select * from x",
        f"select size from read_blob('{filled}/runs/*/run.json')",
        f"select count(*) from read_json('{filled}/runs/*/run.json')",
        f"select count(*) from read_parquet('{filled}/ingest/*/*.parquet')",
        f"select * from glob('{filled}/*')",
        "select unnest([1, 2]), random() < 2, uuid() is not null, now() is not null",
        "select * from generate_series(1, 3), unnest([4, 5]) as u(v)",
        'with "a.b" as (select 1) from "a.b"',
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < 9) select max(n) from t",
        "from documents select list_transform(str_split(text, ' '), lambda word: length(word))",
        "pivot documents on domain in ('Poems', 'Letters') using count(*)",
        "describe documents",
        "summarize documents",
        "show tables",
        "select name from duckdb_settings() limit 1",
        "select table_name from information_schema.tables",
        "select " + "1 + " * 400 + "1 as n",
    ):
        assert ladm("sql", query, "--store", filled).code == 0, query


# -- credentials -----------------------------------------------------------------------------------------------

SIGNED = [
    f"https://user:{CANARY}@example.com/a.jsonl",
    f"s3://AKIA:{CANARY}@bucket/a.jsonl",
    f"https://bucket.s3.amazonaws.com/a.jsonl?X-Amz-Credential=x&X-Amz-Signature={CANARY}",
    f"https://example.com/a.jsonl?token={CANARY}",
    f"simplecache::https://user:{CANARY}@example.com/a.jsonl",
    f"https://account.blob.core.windows.net/a.jsonl?sv=2024&sig={CANARY}",
]


@pytest.mark.parametrize("uri", SIGNED)
def test_addresses_with_credentials_are_refused_without_repeating_them(tmp_path: Path, ladm: Cli, uri: str) -> None:
    for setting in (f"sources=[{{uri: '{uri}'}}]", f"sources='{uri}'", f"store='{uri}'"):
        answer = ladm("run", "--set", "sources=/nowhere", "--set", setting)
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert "credentials by the environment" in answer.err
        assert CANARY not in answer.err + answer.out


@pytest.mark.parametrize("uri", ["data/a@b:c.jsonl", "s3://bucket/a:b@c.jsonl", "https://example.com/a.jsonl?page=2"])
def test_addresses_without_are_not(uri: str) -> None:
    assert load_config(None, [f"sources=[{{uri: '{uri}'}}]"]).sources[0].uri == uri


# -- models ------------------------------------------------------------------------------------------------------


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.path, "unpickled")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """The file that is there when a model's code was run."""
    return tmp_path / "sprung"


def with_code_of_its_own(model: Path, folder: Path, kind: str, trap: Path) -> Path:
    """A model whose configuration names classes of its own, as those that need `trust_remote_code` do."""
    shutil.copytree(model, folder)
    classes = {name: f"own.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}
    for name, more in (("config.json", classes), ("tokenizer_config.json", {"AutoTokenizer": [None, "own.Tokenizer"]})):
        content = json.loads((folder / name).read_text())
        kept = {"model_type": kind} if name == "config.json" else {}
        (folder / name).write_text(json.dumps(content | kept | {"auto_map": more}))
    (folder / "own.py").write_text(f"open({str(trap)!r}, 'w').write('run')\n")
    return folder


def refusals(ladm: Cli, corpus: Corpus, folder: Path) -> list[str]:
    """What `run`, `score` and `model fetch` say of a model, each in one line, before any work."""
    store, said = corpus.folder.parent / "store", []
    for arguments in (
        [*run_arguments(corpus, store, f"scorer.model={folder}")],
        ["score", corpus.folder / "poems.jsonl", "--model", folder],
        ["model", "fetch", folder],
    ):
        answer = ladm(*arguments)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
        said.append(answer.err)
    assert not list(store.rglob("*.parquet"))
    return said


def test_a_models_own_code_is_never_run(
    tmp_path: Path, tiny_model: Path, corpus: Corpus, ladm: Cli, trap: Path
) -> None:
    unknown = with_code_of_its_own(tiny_model, tmp_path / "unknown", "a-kind-of-its-own", trap)
    for said in refusals(ladm, corpus, unknown):
        assert said.startswith("ladm: scorer.model: transformers "), said
    # One of a known kind is loaded as that, by the code in transformers.
    known = with_code_of_its_own(tiny_model, tmp_path / "known", "llama", trap)
    text = tmp_path / "text.txt"
    text.write_text("The river and the stone. " * 100)
    scores = [ladm("score", text, "--model", model, "--span", 16, "--format", "json") for model in (known, tiny_model)]
    assert [answer.code for answer in scores] == [0, 0], scores
    assert scores[0].out == scores[1].out
    assert not trap.exists()


def test_pickled_weights_are_never_read(
    tmp_path: Path, tiny_model: Path, corpus: Corpus, ladm: Cli, trap: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "model.pkl"):
        (folder / name).write_bytes(pickle.dumps({"model.norm.weight": Trap(trap)}))
    for said in refusals(ladm, corpus, folder):
        assert "pickled weights (.bin, .pt) are never loaded" in said
    assert not trap.exists()
    pickle.loads((folder / "model.pt").read_bytes())
    assert trap.read_text() == "unpickled"  # who had read them would have been caught


# -- the network -----------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    """The Prefect server that a run starts for itself."""
    command = [sys.executable, "-P", "-m", "ladm.flows.orchestration.server_process", "0"]
    environment = {**os.environ, "PREFECT_SERVER_API_HOST": "0.0.0.0"}
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    yield running
    running.kill()
    running.wait()


def test_the_prefect_server_listens_on_the_loopback_interface_alone(server: subprocess.Popen[bytes]) -> None:
    assert server.stdout is not None
    port = int(server.stdout.readline())
    listening = [one.laddr for one in psutil.Process(server.pid).net_connections("inet") if one.status == "LISTEN"]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", port)]


def test_a_refusal_is_printable(ladm: Cli) -> None:
    answer = ladm("run", "--set", "sources=/nowhere", "--set", "a\x1b[31m\u202eb=1")
    assert answer.code == 2
    assert answer.err.rstrip("\n").isprintable()
    with pytest.raises(ConfigError):
        load_config(None, ["a\x1b[31m=1"])
