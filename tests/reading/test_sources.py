"""Listing sources: files, folders, globs, odd names, and noticing a changed file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from ladm.tasks.errors import SourceChangedError, SourceError
from ladm.tasks.reading.no_sources import own_folders
from ladm.tasks.reading.readers import SourceConfig
from ladm.tasks.reading.sources import check_unchanged, list_sources
from ladm.tasks.stages.ingest import open_source
from ladm.tasks.storage.file_systems import opened


def names(*uris: object, identity: str = "stat") -> list[str]:
    listed = list_sources([SourceConfig(uri=str(uri)) for uri in uris], identity)
    return [Path(entry.file.uri).name for entry in listed]


def test_files_folders_and_globs(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.parquet", "deep/d.jsonl", "odd [1] ü.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    assert names(tmp_path / "a.jsonl") == ["a.jsonl"]
    assert names(tmp_path / "[ab].jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(tmp_path / "odd [1] ü.jsonl") == ["odd [1] ü.jsonl"]
    assert names(tmp_path / "**" / "*.jsonl") == ["a.jsonl", "b.jsonl", "d.jsonl", "odd [1] ü.jsonl"]
    assert sorted(names(tmp_path)) == ["a.jsonl", "b.jsonl", "c.parquet", "d.jsonl", "odd [1] ü.jsonl"]


def test_a_folder_named_like_a_file_is_walked(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    (tmp_path / "x.jsonl" / "inner.jsonl").write_text("{}\n")
    assert names(tmp_path / "*.jsonl") == ["inner.jsonl"]


def test_a_folder_is_walked_but_for_private_names(tmp_path: Path) -> None:
    private = (".a.jsonl.swp", "_SUCCESS", ".git/c.jsonl", "deep/_temporary/0/d.jsonl")
    memory = fsspec.filesystem("memory")
    for name in ("a.jsonl", "deep/b_.jsonl", *private):
        (tmp_path / "_corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "_corpus" / name).write_text("{}\n")
        memory.pipe(f"/_private/{name}", b"{}\n")
    for folder in (str(tmp_path / "_corpus"), "memory://_private"):
        assert names(folder) == ["a.jsonl", "b_.jsonl"]
        assert names(f"{folder}/_SUCCESS") == ["_SUCCESS"]
        assert names(f"{folder}/.g*") == ["c.jsonl"]
        assert sorted(names(f"{folder}/[._]*.swp", f"{folder}/_*S")) == [".a.jsonl.swp", "_SUCCESS"]


def test_nothing_matches(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(SourceError, match=r"sources\[1\].uri: no file matches"):
        list_sources([SourceConfig(uri=str(tmp_path / "a.jsonl")), SourceConfig(uri=str(tmp_path / "*.parquet"))])


def test_a_dangling_link_is_listed_with_its_problem(tmp_path: Path) -> None:
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (listed,) = list_sources([SourceConfig(uri=str(tmp_path / "*.jsonl"))])
    assert listed.file.problem == "dangling symbolic link"


def linked(tmp_path: Path) -> Path:
    """A folder with links: to a folder elsewhere, to that again, to one of its own, and back to where they lie."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere/books"
    for path in (data / "own.jsonl", data / "deep/d.jsonl", elsewhere / "b.jsonl", elsewhere / "far/f.jsonl"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    (tmp_path / "outside.jsonl").write_text("{}\n")
    for link, target in {
        "books": "../elsewhere/books",
        "more": "../elsewhere/books",
        "again": "deep",
        "here": ".",
        "up": "..",
        "deep/back": "../../data",
        "circle": "circle",
        "../elsewhere/books/far/round": "..",
        "../elsewhere/books/home": "../../data",
        ".hidden": "../elsewhere",
    }.items():
        (data / link).symlink_to(target)
    return data


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    data = linked(tmp_path)
    everything = ["circle", "d.jsonl", "own.jsonl", "b.jsonl", "f.jsonl"]
    for uri in (data, f"{data}/"):
        (found, problems) = (names(uri), [one.file.problem for one in list_sources([SourceConfig(uri=str(uri))])])
        assert sorted(found) == sorted(everything)
        assert [problem for problem in problems if problem] == ["dangling symbolic link"]
    assert names(data / "*" / "*.jsonl") == ["d.jsonl", "b.jsonl"]
    assert names(data / "b*" / "*.jsonl") == ["b.jsonl"]
    assert names(data / "more" / "*.jsonl") == ["b.jsonl"]
    assert names(data / "again" / "d.jsonl") == ["d.jsonl"]
    assert sorted(names(data / "**" / "*.jsonl")) == sorted(everything[1:])
    assert sorted(names(data / "**")) == sorted(everything)
    assert sorted(names(data / "*")) == sorted(everything)
    (listed,) = list_sources([SourceConfig(uri=str(data / "again"))])
    assert listed.file.uri == str(data / "deep/d.jsonl")


def test_many_links_across_are_no_endless_work(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/a{number}.jsonl").write_text("{}\n")
    for number in range(12):
        for other in range(12):
            (tmp_path / f"{number}/to{other}").symlink_to(f"../{other}")
    assert len(names(tmp_path)) == 12
    assert len(names(tmp_path / "**" / "*.jsonl")) == 12


@pytest.mark.parametrize(
    "entries",
    [
        [{"uri": "x.jsonl", "text": "article"}, {"uri": "*.jsonl", "text": "abstract"}],
        [{"uri": "**/*.jsonl", "domain": {"const": "web"}}, {"uri": "books", "domain": {"const": "books"}}],
        [{"uri": "books"}, {"uri": "books"}],
        [{"uri": "books"}, {"uri": "link"}],
        [{"uri": "books"}, {"uri": "./rest/../books/*"}],
    ],
)
def test_a_file_named_by_two_entries_is_refused(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    for name in ("x.jsonl", "books/b.jsonl", "rest/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "link").symlink_to("books")
    sources = [SourceConfig(**{**entry, "uri": f"{tmp_path}/{entry['uri']}"}) for entry in entries]
    with pytest.raises(SourceError, match=r"sources\[1\].uri: .*(x|b).jsonl', as sources\[0\] does; name each file"):
        list_sources(sources)


FOLDERS = ("ingest", "records", "runs")


def store_below(folder: Path) -> None:
    """What a store holds, in short."""
    key = "ab" * 32
    for name in (f"ingest/ab/{key}.parquet", f"records/ab/{key}.json", "runs/1/export/jsonl.zst/a.jsonl.zst"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")


@pytest.mark.parametrize("store", ["data/out", "data/deep/caf\udce9::x", "data", "out"])
def test_the_store_and_the_cache_are_never_read(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "alias").symlink_to(store)
    monkeypatch.setenv("LADM_CACHE", str(data / "cache"))
    (data / "cache").mkdir()
    (data / "cache/a.json").write_text("{}")
    (data / "x.jsonl").write_text("{}\n")
    (tmp_path / store).mkdir(parents=True, exist_ok=True)
    store_below(tmp_path / store)
    if store != "data":  # to a source that lies in a store, another store in it is part of that
        store_below(data / "another")
    for address in (str(tmp_path / store), str(tmp_path / "alias")):
        own = own_folders(address, FOLDERS)
        told: list[str] = []
        for uri in (data, data / "**", data / "*", data / "**/*.json*", data / "**/x.*"):
            sources = [SourceConfig(uri=str(uri))]
            found = [Path(one.file.uri) for one in list_sources(sources, own=own, tell=told.append)]
            assert found == [data / "x.jsonl"]
        if store != "data":
            with pytest.raises(SourceError, match="never read"):
                list_sources([SourceConfig(uri=f"{data / 'cache'}/*.json")], own=own)
            assert len(list_sources([SourceConfig(uri=str(data))], own=own)) == 1
            assert any("files are no sources" in line for line in told)
            exported = [SourceConfig(uri=str(data / "another/runs/*/export/jsonl.zst"))]
            assert len(list_sources(exported, own=own)) == 1  # of another store, and asked for


def test_a_store_beside_objects_is_never_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/beside/x.jsonl": b"{}", "/beside/store/runs/1/a.jsonl": b"{}", "/beside/store2/a.jsonl": b"{}"})
    listed = list_sources([SourceConfig(uri="memory://beside")], own=own_folders("memory://beside/store", FOLDERS))
    assert [Path(one.file.uri).name for one in listed] == ["a.jsonl", "x.jsonl"]
    with pytest.raises(SourceError, match="never read"):
        list_sources([SourceConfig(uri="memory://beside/store/**")], own=own_folders("memory://beside/store", FOLDERS))


def test_what_save_to_disk_notes_is_no_source(tmp_path: Path) -> None:
    for name in ("set/dataset_dict.json", "only/state.json", "only/dataset_info.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir()
        for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json"):
            (tmp_path / "set" / split / name).write_text("{}")
    assert names(tmp_path / "set") == names(tmp_path / "set/**") == ["data-00000-of-00001.arrow"] * 2
    assert names(tmp_path / "set/train") == names(tmp_path / "set/train/*") == ["data-00000-of-00001.arrow"]
    assert names(tmp_path / "set/train/state.json") == ["state.json"]
    assert names(tmp_path / "only") == ["dataset_info.json", "state.json"]


@pytest.mark.parametrize("uri", ["nosuchprotocol://x/y", "s4://bucket/x"])
def test_unknown_protocols_are_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="is not a path or URL"):
        list_sources([SourceConfig(uri=uri)])


def test_a_changed_file_has_another_version(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("one")
    source = [SourceConfig(uri=str(path))]
    by_stat, by_content = list_sources(source)[0].file, list_sources(source, "content")[0].file
    os.utime(path, ns=(1, 1))
    assert list_sources(source)[0].file != by_stat
    assert list_sources(source, "content")[0].file == by_content
    path.write_text("two")
    assert list_sources(source, "content")[0].file != by_content


def test_remote_file_systems(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/listing/a.jsonl": b"1", "/listing/b.jsonl": b"22", "/listing/deep/c.jsonl": b"333"})
    listed = list_sources([SourceConfig(uri="memory://listing/*.jsonl")])
    assert [(entry.file.uri, entry.file.size) for entry in listed] == [
        ("memory:///listing/a.jsonl", 1),
        ("memory:///listing/b.jsonl", 2),
    ]
    assert len(list_sources([SourceConfig(uri="memory://listing")])) == 3
    with pytest.raises(SourceError, match="no file matches"):
        list_sources([SourceConfig(uri="memory://listing/none.jsonl")])


def test_a_file_that_changes_after_it_was_listed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for identity in ("stat", "content"):
        path.write_text("one")
        os.utime(path, ns=(10**18, 10**18))
        (listed,) = list_sources([SourceConfig(uri=str(path))], identity)
        check_unchanged(listed.file)
        path.write_text("two")
        if identity == "content":
            os.utime(path, ns=(10**18, 10**18))
        with pytest.raises(SourceError, match=r"a.jsonl: changed while the run was reading it"):
            check_unchanged(listed.file)
    memory = fsspec.filesystem("memory")
    memory.pipe("/changing/a.jsonl", b"1")
    (listed,) = list_sources([SourceConfig(uri="memory://changing/*.jsonl")])
    check_unchanged(listed.file)
    memory.pipe("/changing/a.jsonl", b"22")
    with pytest.raises(SourceError, match="changed"):
        check_unchanged(listed.file)
    path.unlink()
    with pytest.raises(SourceError):
        check_unchanged(listed.file.replaced(uri=str(path)))


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(OSError, match="a pipe, and no file"):
        opened(str(tmp_path / "a.jsonl"))


def test_only_and_skip_choose_files_by_name_and_path(tmp_path: Path) -> None:
    """`skip` goes by the names of files and folders, and with a slash by paths below the entry's root."""
    for name in ("a.py", "a.md", "x/a.py", "x/build/b.py", "build/b.py", "y/x/c.py", "y/c.min.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")

    def found(uri: Path | str = tmp_path, **settings: list[str]) -> list[str]:
        entry = SourceConfig(uri=str(uri), **settings)  # type: ignore[arg-type]
        return [str(Path(one.file.uri).relative_to(tmp_path)) for one in list_sources([entry])]

    assert found(only=["*.md"]) == ["a.md"]
    assert found(skip=["build", "*.min.py"]) == ["a.md", "a.py", "x/a.py", "y/x/c.py"]
    assert found(skip=["x/build"], only=["b.py"]) == ["build/b.py"]
    assert found(skip=["x/*"]) == ["a.md", "a.py", "build/b.py", "y/c.min.py", "y/x/c.py"]
    assert found(f"{tmp_path}/**/*.py", skip=["y"], only=["[ab].py"]) == [
        "a.py",
        "build/b.py",
        "x/a.py",
        "x/build/b.py",
    ]
    assert found(tmp_path / "x", skip=["x/build"]) == ["x/a.py", "x/build/b.py"]
    with pytest.raises(SourceError, match=r"sources\[0\]\.uri: `skip` leaves no file of '.*'; mend `skip`"):
        found(skip=["*"])


def test_a_file_that_is_gone_is_told_as_one_that_changed(tmp_path: Path) -> None:
    """On a disk and elsewhere, before it is opened and after it was read."""
    memory = fsspec.filesystem("memory")
    (tmp_path / "a.jsonl").write_text("{}\n")
    memory.pipe("/gone/a.jsonl", b"{}\n")
    for uri in (str(tmp_path / "a.jsonl"), "memory://gone/a.jsonl"):
        (listed,) = list_sources([SourceConfig(uri=uri)])
        (tmp_path / "a.jsonl").unlink() if uri.startswith("/") else memory.rm("/gone/a.jsonl")
        for touched in (check_unchanged, open_source):
            with pytest.raises(
                SourceChangedError, match=r"a\.jsonl: gone since the run listed it; put it back, or run"
            ):
                touched(listed.file)
