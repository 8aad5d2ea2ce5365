"""A seed gives the same every time, another seed gives another, and 0 is one as any other."""

from __future__ import annotations

import random

import numpy as np
from conftest import sentence

from ladm.flows.config import load_config
from ladm.tasks.scorers import random_order
from ladm.tasks.scorers.evidence import Evidence
from ladm.tasks.shingles import WordHasher, minhashes, normal_form, shingles
from ladm.tasks.storage import duck


def test_shuffle_orders_by_the_md5_of_seed_and_document() -> None:
    import hashlib

    import duckdb

    ids = [f"document {number}" for number in range(50)]

    def order(seed: int | None) -> list[str]:
        with duckdb.connect() as connection:
            connection.execute(
                "create table ranking (doc_id varchar, domain varchar, rank int, copies int, selected bool)"
            )
            connection.executemany(
                "insert into ranking values (?, 'x', ?, 1, true)", [[one, n] for n, one in enumerate(ids)]
            )
            connection.execute(
                "create view documents as select doc_id, 'h' as sha256, 1 as bytes, 0 as file_index,"
                " rank as file_row_number from ranking"
            )
            duck.set_variables(connection, {"shuffle": seed, "validation": 0.0, "part_bytes": 1000})
            connection.execute(duck.statement("export"))
            return [row[0] for row in connection.execute("select doc_id from export_plan order by position").fetchall()]

    for seed in (0, 1, -5, 2**63 - 1):
        assert order(seed) == sorted(ids, key=lambda one: hashlib.md5(f"{seed}:{one}".encode()).hexdigest())
    assert order(None) == ids
    assert order(0) != order(1)


def test_signatures_of_near_duplicates_go_by_their_seed() -> None:
    words = WordHasher().words(normal_form(sentence(random.Random(1), 300)))
    sets = [shingles(words, 2)]
    by_seed = {seed: minhashes(sets, 64, seed) for seed in (0, 1, 2)}
    assert len({str(one) for one in by_seed.values()}) == 3
    assert all(minhashes(sets, 64, seed) == one for seed, one in by_seed.items())


def test_the_random_scorer_goes_by_its_seed() -> None:
    windows = [Evidence(ids=np.arange(start, start + 9)) for start in range(5)]
    by_seed = {
        seed: [random_order.score(random_order.RandomConfig(seed=seed), one) for one in windows] for seed in (0, 1, 2)
    }
    assert len({str(one) for one in by_seed.values()}) == 3
    assert by_seed[1] == [random_order.score(random_order.RandomConfig(seed=1), one) for one in windows]


def test_seeds_are_kept_as_they_are_written() -> None:
    settings = [
        "export=[{format: parquet, shuffle: 0}]",
        "deduplicate={near: {seed: 7}}",
        "select={budget_tokens: 100, replay: {share: 0.1, seed: 3}}",
        "scorer.beside={random: {seed: 5}}",
    ]
    config = load_config(overrides=settings)
    assert config.export[0].shuffle == 0
    assert config.deduplicate is not None
    assert config.deduplicate.near is not None
    assert config.select.replay is not None
    assert (config.deduplicate.near.seed, config.select.replay.seed) == (7, 3)
    assert config.scorer.beside.model_dump()["random"] == {"seed": 5}
