"""Which small files are read together, and what it means for the others when one comes, goes or changes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ladm.tasks.manifest import SourceFile
from ladm.tasks.reading.groups import FEWEST, LEAST_BYTES, MOST_GROUPS, groups_of
from ladm.tasks.reading.sources import ListedFile
from ladm.tasks.stages.ingest import SourceConfig

PACK = 2**20
ENTRY = SourceConfig(uri="/data")


def listed(name: str, size: int = 4200, entry: SourceConfig = ENTRY) -> ListedFile:
    return ListedFile(SourceFile(uri=f"/data/{name}", size=size, version="1"), entry)


def names(groups: list[list[ListedFile]]) -> set[tuple[tuple[str, str, int], ...]]:
    return {tuple((one.file.uri, one.file.version, one.file.size) for one in group) for group in groups}


@pytest.fixture(scope="module")
def files() -> list[ListedFile]:
    sizes = random.Random(1)
    return [listed(f"{number:05d}", sizes.choice([50, 3000, 4200, 20_000, 90_000])) for number in range(5000)]


def test_every_file_is_in_one_group_and_in_order(files: list[ListedFile]) -> None:
    groups = groups_of(files, PACK)
    assert [one for group in groups for one in group] == files
    weights = [sum(max(one.file.size, LEAST_BYTES) for one in group) for group in groups]
    assert PACK / 2 < sum(weights) / len(weights) < 2 * PACK
    assert max(weights) < 1.5 * MOST_GROUPS * PACK


@pytest.mark.parametrize("what", ["added", "removed", "changed"])
def test_one_file_concerns_its_own_group_alone(files: list[ListedFile], what: str) -> None:
    """All but a file that ends a group, and a new one where a group that came out too large is cut again: few do."""
    before = names(groups_of(files, PACK))
    ends = {group[-1].file.uri for group in groups_of(files, PACK)}
    tries = random.Random(2)
    gone, come = Counter[int](), Counter[int]()
    for _ in range(100):
        after = list(files)
        place = tries.randrange(len(files))
        match what:
            case "added":
                after.insert(place, listed(f"{place:05d}-new{tries.random()}"))
            case "removed":
                place = next(at for at in range(place, len(files)) if files[at].file.uri not in ends)
                del after[place]
            case "changed":
                file = files[place].file
                after[place] = ListedFile(file.replaced(version="2", size=file.size + 1), ENTRY)
        now = names(groups_of(after, PACK))
        gone[len(before - now)] += 1
        come[len(now - before)] += 1
    if what == "added":
        assert gone[1] >= 95
        assert come[1] >= 90
        assert max([*gone, *come]) <= 3
    else:
        assert (gone, come) == ({1: 100}, {1: 100})


def test_a_file_that_ends_a_group_joins_it_to_the_next(files: list[ListedFile]) -> None:
    groups = groups_of(files, PACK)
    after = [one for one in files if one is not groups[3][-1]]
    assert len(names(groups) - names(groups_of(after, PACK))) == 2


def test_large_files_and_few_files_are_jobs_of_their_own() -> None:
    few = [listed(str(number)) for number in range(FEWEST - 1)]
    assert groups_of(few, PACK) == [[one] for one in few]
    many = [listed(f"{number:03d}", PACK if number % 2 else 10) for number in range(3 * FEWEST)]
    groups = groups_of(many, PACK)
    assert {len(group) for group in groups if group[0].file.size == PACK} == {1}
    assert sorted(one.file.uri for group in groups for one in group) == sorted(one.file.uri for one in many)
    assert groups_of(many, 0) == [[one] for one in many]


def test_files_of_two_entries_are_never_together() -> None:
    other = SourceConfig(uri="/data/other", domain={"const": "x"})
    files = [listed(f"a{number}") for number in range(40)] + [listed(f"b{n}", 4200, other) for n in range(40)]
    assert all(len({one.config.uri for one in group}) == 1 for group in groups_of(files, 2**30))


def test_names_whose_hashes_never_end_a_group_are_parted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.tasks.reading import groups

    order = random.Random(3)
    hashes = {f"/data/{number:05d}": (1 << 63) + order.randrange(1 << 62) for number in range(20_000)}
    monkeypatch.setattr(groups, "_hash", lambda one: hashes[one.file.uri])
    files = [listed(f"{number:05d}") for number in range(20_000)]
    found = groups_of(files, PACK)
    assert [one for group in found for one in group] == files
    assert max(len(group) for group in found) * LEAST_BYTES <= MOST_GROUPS * PACK
    without = [one for one in files if one is not files[777]]
    assert len(names(found) - names(groups_of(without, PACK))) <= 2
