"""Fuzzing what comes from outside: files for the record reader, ten thousand in the slow run, and configurations."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ladm.flows.config import RunConfig, load_config, sample_config
from ladm.flows.dag.preflight import preflight
from ladm.tasks.errors import ConfigError, UserError
from ladm.tasks.job import Job
from ladm.tasks.manifest import SourceFile
from ladm.tasks.reading.readers import BadRecord, Record, SourceConfig, UnreadableFile, read_records
from ladm.tasks.stages.ingest import ingest
from ladm.tasks.storage.store import Store

READER_CASES = 10_000
QUICK_CASES = 1_000
CONFIG_CASES = 300
LIMIT = 400
"""`max_record_bytes` of the fuzzed files, so that many of their lines are longer."""

quick = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "derandomize": True}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(max_size=60) | values,
        "meta": st.fixed_dictionaries({}, optional={"pile_set_name": st.text(max_size=12) | values}) | values,
        "id": values,
    },
)
objects = fields.map(lambda one: json.dumps(one, ensure_ascii=False).encode("utf-8", "surrogatepass"))
long_lines = st.integers(0, 3 * LIMIT).map(lambda size: b'{"text": "%s"}' % (b"x" * size))
odd_lines = st.sampled_from(
    [
        *(b"", b" ", b"\t\r", b"\0" * 40, b"{}", b"[", b"{", b"null", b'"text"', b"{'text': 1}", b"\xef\xbb\xbf{}"),
        *(b'{"text": NaN}', b'{"text": "a",}', b'{"text": "a"}{"text": "b"}', b'{"text": "\\ud800"}', b"[" * 3000),
        *('{"text": "\u2028\u2029\x85"}'.encode(), b'{"text": "\xff"}', b'{"text": "\x0b\x0c"}', b'{"te', b"\x1b[31m"),
    ]
)


@st.composite
def damaged(draw: st.DrawFn, lines: st.SearchStrategy[bytes]) -> bytes:
    """A line with one byte changed, removed or doubled."""
    line = draw(lines)
    if not line:
        return line
    place = draw(st.integers(0, len(line) - 1))
    return line[:place] + draw(st.binary(max_size=2)) + line[place + draw(st.integers(0, 1)) :]


lines = st.one_of(objects, objects, long_lines, odd_lines, st.binary(max_size=50), damaged(objects))
contents = st.tuples(st.lists(lines, max_size=8), st.sampled_from([b"\n", b"\r\n"]), st.booleans()).map(
    lambda parts: parts[1].join(parts[0]) + parts[1] * parts[2]
)
PACKED = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content, 1),
    ".zst": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
    ".bz2": lambda content: bz2.compress(content, 1),
    ".xz": lambda content: lzma.compress(content, preset=0),
}


def read(content: bytes, name: str) -> list[Record | BadRecord] | UnreadableFile:
    """What the reader makes of a file: all it found, or why it is not used."""
    try:
        return list(read_records(io.BytesIO(content), name, SourceConfig(uri="x", max_record_bytes=LIMIT)))
    except UnreadableFile as refused:
        return refused


def stored_lines(content: bytes) -> list[tuple[int, int]]:
    """(line, offset) of every line that is not blank, found by another way than the reader's."""
    found, offset = [], 0
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            found.append((number, offset))
        offset += len(line) + 1
    return found


packings = st.sampled_from(list(PACKED))
damages = st.none() | st.tuples(st.floats(0, 1), st.integers(0, 255))


@settings(max_examples=QUICK_CASES, **quick)
@given(contents, packings, damages)
def test_no_file_breaks_the_reader_and_no_line_is_lost(
    content: bytes, packing: str, damage: tuple[float, int] | None
) -> None:
    check_reading(content, packing, damage)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute or two, and ten on a machine busy with other work
@settings(max_examples=READER_CASES, **quick)
@given(contents, packings, damages)
def test_ten_thousand_files(content: bytes, packing: str, damage: tuple[float, int] | None) -> None:
    check_reading(content, packing, damage)


def check_reading(content: bytes, packing: str, damage: tuple[float, int] | None) -> None:
    """Whatever a file holds: a reason for the whole of it, or all of its lines, each good or bad with a reason."""
    stored = PACKED[packing](content)
    if damage and stored:  # one byte of the stored file is another, or the file ends there
        place, value = min(int(damage[0] * len(stored)), len(stored) - 1), damage[1]
        stored = stored[:place] + (bytes([value]) + stored[place + 1 :] if value else b"")
    found = read(stored, f"a.jsonl{packing}")
    if isinstance(found, UnreadableFile):
        assert found.reason
        assert found.reason.isprintable()
        return
    for one in found:
        if isinstance(one, BadRecord):
            assert one.reason
            assert one.reason.isprintable()
            assert one.excerpt.isprintable()
            assert len(one.excerpt) <= 200
        else:
            one.text.encode()
            one.domain.encode()
            assert one.domain
            assert one.meta is None or isinstance(json.loads(one.meta), dict)
    if packing == "" and stored[:4] not in (b"\x28\xb5\x2f\xfd",) and stored[:2] != b"\x1f\x8b":
        places = [(one.line, one.offset) for one in found]
        mark = 3 if stored.startswith(b"\xef\xbb\xbf") else 0  # a byte order mark is no part of line 1
        expected = [(line, offset if line > 1 else mark) for line, offset in stored_lines(stored)]
        assert [place for place in places if place not in expected] == []
        missing = [place for place in expected if place not in places]
        assert not missing or (mark and missing == [(1, mark)] and not stored.split(b"\n")[0][3:].strip())
    if packing and stored == PACKED[packing](content):
        plain = read(content, "a.jsonl")
        assert found == plain


@settings(max_examples=100, **quick)
@given(contents)
def test_ingestion_accounts_for_every_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(content)
        status = path.stat()
        source = SourceFile(uri=str(path), size=status.st_size, version=str(status.st_mtime_ns))
        config = SourceConfig(uri=str(path), max_record_bytes=LIMIT).model_dump(exclude={"uri"})
        job = Job(
            stage="ingest", label="a", store=f"{folder}/store", config={**config, "shard_bytes": 100}, source=source
        )
        store = Store(job.store)
        outcome = ingest(job, store, "0" * 64)
        outcome.counts.check("fuzzed")
        rows = [row for shard in outcome.shards for row in store.read_shard(shard).to_pylist()]
        assert len(rows) == outcome.counts.kept
        assert sum(entry.records for entry in outcome.quarantine) == outcome.counts.quarantined
        whole = all(entry.line for entry in outcome.quarantine)
        if whole and not content.startswith(b"\xef\xbb\xbf"):
            seen = sorted([row["line"] for row in rows] + [entry.line for entry in outcome.quarantine if entry.line])
            assert seen == [line for line, _ in stored_lines(content)]


# -- the configuration -----------------------------------------------------------------------------------------


def places_in(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value within a configuration."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, one in inner for place in places_in(one, (*way, key)))]


WHOLE = RunConfig.model_validate(sample_config()).model_dump(mode="json")
PLACES = [place for place in places_in(WHOLE) if place]
odd_values = st.one_of(
    values,
    st.sampled_from(
        [-1, 0, 2**70, 1e308, float("nan"), float("inf"), "", "\0", "\x1b[31m", "a" * 5000, "../..", [], {}]
    ),
    st.sampled_from(["all", "14-24", "3-1", "embedded", "parquet", "quotas", "sha256", "s3://", "a::b", "file://\0"]),
)


def replaced(value: Any, way: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at one place."""
    if not way:
        return new
    copy = value.copy()
    copy[way[0]] = replaced(copy[way[0]], way[1:], new)
    return copy


def refused_or_valid(path: Path | None, overrides: list[str]) -> RunConfig | None:
    """Load a configuration; what is wrong is one line that can be printed."""
    try:
        config = load_config(str(path) if path else None, overrides)
    except ConfigError as error:
        check_refusal(error)
        return None
    assert isinstance(config, RunConfig)
    return config


def check_refusal(error: UserError) -> None:
    """What a user is told is one line."""
    message = str(error)
    assert message
    assert "\n" not in message
    assert "Traceback" not in message


@settings(max_examples=CONFIG_CASES, **quick)
@given(st.lists(st.tuples(st.sampled_from(PLACES), odd_values), min_size=1, max_size=3))
def test_no_value_breaks_the_configuration(tmp_path_factory: pytest.TempPathFactory, changes: list[Any]) -> None:
    config = WHOLE
    for way, value in changes:
        try:
            config = replaced(config, way, value)
        except (KeyError, IndexError, TypeError, AttributeError):  # an earlier change took the place away
            continue
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    try:
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
    except (UnicodeEncodeError, yaml.YAMLError):
        return
    refused_or_valid(path, [])


@settings(max_examples=CONFIG_CASES, **quick)
@given(st.text(max_size=80) | st.binary(max_size=80) | contents)
def test_no_file_breaks_the_configuration(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    refused_or_valid(path, [])


@settings(max_examples=CONFIG_CASES, **quick)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([".".join(map(str, place)) for place in PLACES]) | st.text(max_size=20),
            odd_values.map(json.dumps) | st.text(max_size=20),
        ).map("=".join)
        | st.text(max_size=20),
        max_size=3,
    )
)
def test_no_setting_breaks_the_configuration(overrides: list[str]) -> None:
    refused_or_valid(None, overrides)


places = st.one_of(
    st.text(st.characters(exclude_characters="/\\"), max_size=12),  # so that none leads out of the test's own folder
    st.sampled_from(
        ["\0", "a\0b", "", " ", "~", "~nobody/x", "..", "a" * 300, "a/" * 3000, "[", "[a", "***", "0**", "a?", "{a,b}"]
    ),
    st.sampled_from(
        ["::", "a::b", "zip://a::b", "file://", "file://\0", "memory://", "memory://[", "s3:/x", "://", "x://y"]
    ),
    st.sampled_from(
        ["zip://x.zip", "tar://", "github://", "dir://x", "reference::x", "http://", "data:x", "local://x"]
    ),
)


@settings(max_examples=CONFIG_CASES, **quick)
@given(sources=st.lists(places, min_size=1, max_size=3), store=places, against=st.none() | places)
def test_no_place_breaks_the_preflight(
    tmp_path_factory: pytest.TempPathFactory, sources: list[str], store: str, against: str | None
) -> None:
    folder = tmp_path_factory.getbasetemp() / "nowhere" / "deep" / "down"
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"sources": sources, "store": store}
    if against is not None:
        values["decontaminate"] = {"against": [against]}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("HOME", str(folder))
        try:
            preflight(RunConfig.model_validate(values), "length")
        except UserError as error:
            check_refusal(error)
        except ValidationError:
            pass  # `load_config` makes one line of it: see above
