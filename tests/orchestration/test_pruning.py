"""The database of the servers that runs start for themselves goes where nobody has it open, and only that one."""

from __future__ import annotations

from pathlib import Path

from ladm.flows.orchestration.pruning import prune_database


def test_only_our_own_and_only_where_no_server_has_it_open(tmp_path: Path) -> None:
    assert prune_database(tmp_path) == 0
    ours = [tmp_path / name for name in ("prefect.db", "prefect.db-wal", "prefect.db-shm")]
    others = [tmp_path / name for name in ("prefect-serve.db", "other.db")]
    for path in (*ours, *others):
        path.write_bytes(b"x" * 100)
    with ours[1].open("rb"):
        assert prune_database(tmp_path) == 0
    assert all(path.exists() for path in ours)
    assert prune_database(tmp_path, dry_run=True) == 300
    assert all(path.exists() for path in ours)
    assert prune_database(tmp_path) == 300
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)
