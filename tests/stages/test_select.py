"""Selection in SQL against plain loops: every allocation, bands, minimum, limit on sources, and what is refused."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import SHARED, Answer, Corpus, run_arguments
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ladm.flows.config import load_config
from ladm.tasks.errors import ConfigError
from ladm.tasks.exporters.selection_text import selection_text
from ladm.tasks.job import Job, Outcome
from ladm.tasks.manifest import Shard
from ladm.tasks.schema import DOCUMENTS, SCORES
from ladm.tasks.selection import SelectConfig
from ladm.tasks.stages.rank import rank
from ladm.tasks.storage.store import Store, table_of

Cli = Callable[..., Answer]
Document = dict[str, Any]  # doc_id, domain, cds, doc_tokens, source


# -- helpers -------------------------------------------------------------------------------------------------


def made_up(seed: int, documents: int = 300, longest: int = 500) -> list[Document]:
    """Documents in four domains of very different size, with many ties, from seven sources."""
    chance = random.Random(seed)
    return [
        {
            "doc_id": f"{number:04d}",
            "domain": chance.choices("wxyz", [20, 10, 4, 1])[0],
            "cds": chance.choice([1.0, 2.0, chance.random()]),
            "doc_tokens": chance.randint(1, longest),
            "source": f"/data/{chance.randint(1, 7)}.jsonl",
        }
        for number in range(documents)
    ]


def shards_of(store: Store, documents: list[Document]) -> list[Shard]:
    """A score shard and a document shard of these documents."""
    scores = {
        "window_id": [f"{document['doc_id']}:0" for document in documents],
        "window_index": [0] * len(documents),
        "n_tokens": [8] * len(documents),
        "doc_tokens_exact": [True] * len(documents),
        "cds_per_layer": [[document["cds"]] for document in documents],
        "layers": [[0]] * len(documents),
    }
    texts = {name: [0] * len(documents) for name in ("line", "offset", "bytes")}
    texts |= {name: [""] * len(documents) for name in ("text", "sha256", "meta")}  # type: ignore[dict-item]
    shards = []
    for stage, columns, schema in (("score", scores, SCORES), ("length", texts, DOCUMENTS)):
        rest = {name: [document.get(name) for document in documents] for name in schema.names if name not in columns}
        shards.append(store.write_shard(stage, f"{stage}key", table_of({**columns, **rest}, schema)))
    return shards


def outcome_of(folder: Path, documents: list[Document], **select: Any) -> tuple[Store, Outcome]:
    store = Store(str(folder))
    config = SelectConfig(**select)
    score_shard, document_shard = shards_of(store, documents)
    documents_too = [] if config.max_source_share is None else [document_shard]
    inputs = {"scores": [score_shard], "documents": documents_too}
    job = Job(stage="rank", label="x", store=store.uri, config=config.model_dump(), inputs=inputs)
    outcome = rank(job, store, "rankkey")
    outcome.counts.check("rank")
    return store, outcome


def selected_by_sql(folder: Path, documents: list[Document], **select: Any) -> set[str]:
    store, outcome = outcome_of(folder, documents, **select)
    rows = store.read_shard(outcome.shards[0]).to_pylist()
    assert len(rows) == len(documents)
    return {row["doc_id"] for row in rows if row["selected"]}


def allocation_by_sql(folder: Path, documents: list[Document], **select: Any) -> list[dict[str, Any]]:
    store, outcome = outcome_of(folder, documents, **select)
    rows: list[dict[str, Any]] = store.read_shard(outcome.files[0]).to_pylist()
    return rows


def best_first(documents: Iterable[Document]) -> dict[str, list[Document]]:
    """Domain → its documents, best first."""
    domains: dict[str, list[Document]] = defaultdict(list)
    for document in sorted(documents, key=lambda d: (-d["cds"], d["doc_id"])):
        domains[document["domain"]].append(document)
    return domains


def tokens(documents: Iterable[Document], of: set[str] | None = None) -> int:
    return sum(document["doc_tokens"] for document in documents if of is None or document["doc_id"] in of)


def fitting(documents: Iterable[Document], limit: int) -> list[Document]:
    """The documents before the first that would pass the limit."""
    taken, spent = [], 0
    for document in documents:
        if spent + document["doc_tokens"] > limit:
            break
        spent += document["doc_tokens"]
        taken.append(document)
    return taken


def ids(documents: Iterable[Document]) -> set[str]:
    return {document["doc_id"] for document in documents}


def up_to(documents: Iterable[Document], minimum: int) -> list[Document]:
    """The documents up to the one that reaches a minimum."""
    taken: list[Document] = []
    for document in documents:
        if tokens(taken) >= minimum:
            break
        taken.append(document)
    return taken


def shares(documents: Iterable[Document], budget: int, minimum: int = 0) -> dict[str, Fraction]:
    """Domain → the tokens it should get: the common share, or what it takes to reach the minimum if that is more."""
    domains = best_first(documents)
    least = {domain: Fraction(tokens(up_to(best, minimum))) for domain, best in domains.items()}
    lifted: dict[str, Fraction] = {}
    while others := domains.keys() - lifted:
        share = (budget - sum(lifted.values())) / Fraction(sum(tokens(domains[domain]) for domain in others))
        below = {domain: least[domain] for domain in others if least[domain] > share * tokens(domains[domain])}
        if not below:
            return lifted | {domain: share * tokens(domains[domain]) for domain in others}
        lifted |= below
    return lifted


def in_proportion(documents: list[Document], budget: int, minimum: int = 0) -> list[Document]:
    """All documents by turn: those that begin before their domain's share, then the others."""
    queue = []
    targets = shares(documents, budget, minimum)
    for domain, best in best_first(documents).items():
        running = 0
        for document in best:
            late = running >= targets[domain]
            running += document["doc_tokens"]
            queue.append((late, Fraction(running, tokens(best)), document["doc_id"], document))
    return [document for *_, document in sorted(queue, key=lambda place: place[:3])]


def check_shares(documents: list[Document], taken: set[str], budget: int) -> dict[str, Fraction]:
    """Each domain misses its share by less than the document that crosses it. Returns the misses in such documents."""
    misses = {}
    for domain, target in shares(documents, budget).items():
        best, got = best_first(documents)[domain], 0
        for document in best:
            if got + document["doc_tokens"] > target:
                break
            got += document["doc_tokens"]
        else:
            assert ids(best) <= taken
            continue
        miss = tokens(best, taken) - target
        assert miss in (got - target, got + document["doc_tokens"] - target)
        misses[domain] = miss / document["doc_tokens"]
    assert all(-1 < miss < 1 for miss in misses.values())
    return misses


def published_loop(documents: list[Document], budget: int) -> set[str]:
    taken: set[str] = set()
    for percent in range(1, 101):
        taken = set()
        for best in best_first(documents).values():
            taken |= ids(best[: percent * len(best) // 100])
        if tokens(documents, taken) > budget:
            break
    return taken


# -- every allocation against a loop -------------------------------------------------------------------------


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from("wxyz"), st.integers(0, 9), st.integers(1, 60)), min_size=1, max_size=60),
    share=st.fractions(0, 1),
)
def test_proportional_misses_no_share_by_a_document(tmp_path: Path, rows: list[Any], share: Fraction) -> None:
    documents = [
        {"doc_id": f"{number:02d}", "domain": domain, "cds": score, "doc_tokens": size, "source": "s"}
        for number, (domain, score, size) in enumerate(rows)
    ]
    budget = max(1, int(share * tokens(documents)))
    taken = selected_by_sql(tmp_path, documents, budget_tokens=budget)
    assert taken == ids(fitting(in_proportion(documents, budget), budget))
    check_shares(documents, taken, budget)
    left = sorted(document["doc_tokens"] for document in documents if document["doc_id"] not in taken)
    assert 0 <= budget - tokens(documents, taken) < (left[-1] if left else 1)


@pytest.mark.parametrize("share", [Fraction(1, 1000), Fraction(3, 10), Fraction(99, 100), Fraction(3, 1)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_published_equals_the_loop_of_the_released_filter(tmp_path: Path, seed: int, share: Fraction) -> None:
    documents = made_up(seed, 700)
    budget = int(share * tokens(documents))
    expected = published_loop(documents, budget)
    assert selected_by_sql(tmp_path, documents, allocation="published", budget_tokens=budget) == expected
    assert (tokens(documents, expected) > budget) == (share < 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_uniform_fills_each_domain_alone_and_reports_what_is_short(tmp_path: Path, seed: int) -> None:
    documents = made_up(seed)
    budget = tokens(documents) * 4 // 10
    domains = best_first(documents)
    expected = {domain: fitting(best, budget // 4) for domain, best in domains.items()}
    store, outcome = outcome_of(tmp_path, documents, allocation="uniform", budget_tokens=budget)
    rows = store.read_shard(outcome.shards[0]).to_pylist()
    assert {row["doc_id"] for row in rows if row["selected"]} == set().union(*map(ids, expected.values()))
    assert store.read_shard(outcome.files[0]).to_pylist() == [
        {
            "domain": domain,
            "bucket_min": None,
            "bucket_max": None,
            "target_tokens": budget // 4,
            "selected_tokens": tokens(expected[domain]),
            "documents": len(expected[domain]),
            "short_tokens": budget // 4 - tokens(expected[domain]),
            "exhausted": len(expected[domain]) == len(domains[domain]),
            "role": "long",
        }
        for domain in "wxyz"
    ]
    assert expected["z"] == domains["z"]  # the small domain has not enough, and nobody gets what it lacks
    assert outcome.measures["short_tokens"] == budget - sum(map(tokens, expected.values()))


QUOTAS: list[dict[str, Any]] = [
    {"domain": "w", "bucket": [None, 100], "tokens": 900},
    {"domain": "w", "bucket": [100, 300], "tokens": 5000},
    {"domain": "x", "tokens": 4000},
    {"domain": "z", "bucket": [250, None], "tokens": 100_000},
    {"domain": "nowhere", "tokens": 10},
]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_quotas_equal_a_loop(tmp_path: Path, seed: int) -> None:
    documents = made_up(seed)
    domains = best_first(documents)
    expected, table = set(), []
    for quota in QUOTAS:
        shortest, end = quota.get("bucket") or (None, None)
        fits = [d for d in domains[quota["domain"]] if (shortest or 0) <= d["doc_tokens"] < (end or 10**9)]
        taken = fitting(fits, quota["tokens"])
        expected |= ids(taken)
        short = quota["tokens"] - tokens(taken)
        if taken != fits:
            assert short < fits[len(taken)]["doc_tokens"]  # missed by less than one document
        got = (tokens(taken), len(taken), short, taken == fits)
        table.append((quota["domain"], shortest, end, quota["tokens"], *got, "long"))
    assert selected_by_sql(tmp_path, documents, allocation="quotas", quotas=QUOTAS) == expected
    rows = allocation_by_sql(tmp_path, documents, allocation="quotas", quotas=QUOTAS)
    assert sorted((tuple(row.values()) for row in rows), key=str) == sorted(table, key=str)
    assert ("z", 250, None, 100_000) in {row[:4] for row in table if row[-2]}


@pytest.mark.parametrize("allocation", ["proportional", "published", "uniform"])
def test_without_a_budget_everything_is_selected_and_nothing_is_short(tmp_path: Path, allocation: str) -> None:
    documents = made_up(1)
    assert selected_by_sql(tmp_path, documents, allocation=allocation) == ids(documents)
    for row in allocation_by_sql(tmp_path, documents, allocation=allocation):
        assert (row["target_tokens"], row["short_tokens"], row["exhausted"]) == (None, 0, True)


def test_a_budget_above_everything_is_reported_as_short(tmp_path: Path) -> None:
    documents = made_up(1)
    store, outcome = outcome_of(tmp_path, documents, budget_tokens=2 * tokens(documents))
    assert outcome.measures["short_tokens"] == tokens(documents)
    for row in store.read_shard(outcome.files[0]).to_pylist():
        assert (row["target_tokens"], row["short_tokens"]) == (2 * row["selected_tokens"], row["selected_tokens"])
        assert row["exhausted"]


# -- bands, minimum, limit on sources ------------------------------------------------------------------------


@pytest.mark.parametrize("allocation", ["proportional", "published", "uniform", "quotas"])
@pytest.mark.parametrize(("top", "bottom"), [(0.29, 0.0), (0.0, 0.57), (0.1, 0.25)])
def test_bands_are_gone_before_selection(tmp_path: Path, allocation: str, top: float, bottom: float) -> None:
    documents = made_up(4, 600)
    left = []
    for best in best_first(documents).values():
        dropped_top, dropped_bottom = (int(Fraction(str(share)) * len(best)) for share in (top, bottom))
        left += best[dropped_top : len(best) - dropped_bottom]
    assert len(left) < len(documents)
    select: dict[str, Any] = {"allocation": allocation, "budget_tokens": tokens(documents) // 5}
    if allocation == "quotas":
        select |= {"quotas": QUOTAS, "budget_tokens": None}
    banded = selected_by_sql(tmp_path / "a", documents, drop_top=top, drop_bottom=bottom, **select)
    assert banded
    assert banded == selected_by_sql(tmp_path / "b", left, **select)


@pytest.mark.parametrize(("band", "left"), [("drop_top", range(29, 100)), ("drop_bottom", range(71))])
def test_29_percent_of_100_documents_are_29(tmp_path: Path, band: str, left: range) -> None:
    assert int(0.29 * 100) == 28
    documents = [
        {"doc_id": f"{number:03d}", "domain": "x", "cds": -float(number), "doc_tokens": 1, "source": "s"}
        for number in range(100)
    ]
    assert selected_by_sql(tmp_path, documents, **{band: 0.29}) == {f"{number:03d}" for number in left}


@pytest.mark.parametrize("minimum", [1, 700, 4000])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_minimum_comes_before_the_common_share(tmp_path: Path, seed: int, minimum: int) -> None:
    documents = made_up(seed)
    budget = tokens(documents) * 3 // 10
    first = set().union(*(ids(up_to(best, minimum)) for best in best_first(documents).values()))
    assert tokens(documents, first) <= budget
    rest = [document for document in in_proportion(documents, budget, minimum) if document["doc_id"] not in first]
    expected = first | ids(fitting(rest, budget - tokens(documents, first)))
    select = {"budget_tokens": budget, "min_tokens_per_domain": minimum}
    assert selected_by_sql(tmp_path, documents, **select) == expected
    rows = {row["domain"]: row for row in allocation_by_sql(tmp_path, documents, **select)}
    for domain, best in best_first(documents).items():
        assert rows[domain]["target_tokens"] == round(shares(documents, budget, minimum)[domain])
        assert rows[domain]["selected_tokens"] >= min(minimum, tokens(best))
        longest = max(document["doc_tokens"] for document in best)
        assert abs(rows[domain]["target_tokens"] - rows[domain]["selected_tokens"]) < longest
    # the targets add up to the budget (each is rounded)
    assert sum(row["target_tokens"] for row in rows.values()) == pytest.approx(budget, abs=4)


def test_minimums_above_the_budget_are_filled_at_one_pace_and_reported(tmp_path: Path) -> None:
    documents = [
        {"doc_id": f"{domain}{number}", "domain": domain, "cds": -float(number), "doc_tokens": 10, "source": "s"}
        for domain in "xy"
        for number in range(10)
    ]
    select = {"budget_tokens": 65, "min_tokens_per_domain": 50}
    assert selected_by_sql(tmp_path, documents, **select) == {"x0", "x1", "x2", "y0", "y1", "y2"}
    rows = allocation_by_sql(tmp_path, documents, **select)
    assert [(row["target_tokens"], row["short_tokens"], row["exhausted"]) for row in rows] == [(50, 20, False)] * 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_source_gets_more_than_its_share(tmp_path: Path, seed: int) -> None:
    documents = made_up(seed)
    budget = tokens(documents) * 3 // 10
    limit = budget * 11 // 100
    spent: dict[str, int] = defaultdict(int)
    allowed, closed = [], set()
    for document in in_proportion(documents, budget):
        source, size = document["source"], document["doc_tokens"]
        if size > limit or source in closed:
            continue
        if spent[source] + size > limit:
            closed.add(source)
            continue
        spent[source] += size
        allowed.append(document)
    expected = ids(fitting(allowed, budget))
    assert closed
    assert expected != selected_by_sql(tmp_path / "without", documents, budget_tokens=budget)
    assert selected_by_sql(tmp_path, documents, budget_tokens=budget, max_source_share=0.11) == expected


def test_a_limit_on_sources_leaves_a_domain_short_and_says_so(tmp_path: Path) -> None:
    documents = [
        {"doc_id": f"{domain}{number}", "domain": domain, "cds": -float(number), "doc_tokens": 10, "source": domain}
        for domain in "xy"
        for number in range(10)
    ]
    documents.append({"doc_id": "long", "domain": "x", "cds": 9.0, "doc_tokens": 99, "source": "x"})
    rows = allocation_by_sql(tmp_path, documents, allocation="uniform", budget_tokens=120, max_source_share=0.3)
    assert [(row["selected_tokens"], row["short_tokens"], row["exhausted"]) for row in rows] == [(30, 30, True)] * 2


def taken_again(folder: Path, documents: list[Document], **select: Any) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """How often each document is selected, and the allocation."""
    store, outcome = outcome_of(folder, documents, **select)
    rows = store.read_shard(outcome.shards[0]).to_pylist()
    assert all(row["selected"] == (row["copies"] > 0) for row in rows)
    spent = sum(row["copies"] * row["doc_tokens"] for row in rows)
    assert outcome.measures["selected_tokens"] == spent
    allocation: list[dict[str, Any]] = store.read_shard(outcome.files[0]).to_pylist()
    assert sum(row["selected_tokens"] for row in allocation) == spent
    assert sum(row["documents"] for row in allocation) == sum(row["selected"] for row in rows)
    return {row["doc_id"]: row["copies"] for row in rows}, allocation


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_short_domain_takes_its_documents_again_up_to_the_cap(tmp_path: Path, seed: int, most: int) -> None:
    documents = made_up(seed)
    budget = tokens(documents) * 8 // 10
    copies, allocation = taken_again(
        tmp_path, documents, allocation="uniform", budget_tokens=budget, max_copies=most
    )  # fmt: skip
    expected: dict[str, int] = Counter()
    for domain, best in best_first(documents).items():
        taken = fitting(best * most, budget // 4)
        expected.update(document["doc_id"] for document in taken)
        (row,) = (row for row in allocation if row["domain"] == domain)
        assert (row["selected_tokens"], row["exhausted"]) == (tokens(taken), len(taken) == most * len(best))
    assert {doc_id: number for doc_id, number in copies.items() if number} == expected
    assert max(copies.values()) == most


def test_copies_in_quotas_and_in_proportion(tmp_path: Path) -> None:
    documents = [
        {"doc_id": f"{domain}{number}", "domain": domain, "cds": -float(number), "doc_tokens": size, "source": "s"}
        for domain, sizes in {"x": [10, 10, 20], "y": [30, 10]}.items()
        for number, size in enumerate(sizes)
    ]
    quotas = [{"domain": "x", "bucket": [None, 15], "tokens": 55}, {"domain": "y", "tokens": 40}]
    copies, _ = taken_again(tmp_path / "a", documents, allocation="quotas", quotas=quotas, max_copies=3)
    assert copies == {"x0": 3, "x1": 2, "x2": 0, "y0": 1, "y1": 1}
    copies, rows = taken_again(tmp_path / "b", documents, budget_tokens=130, max_copies=2)
    assert copies == {"x0": 2, "x1": 2, "x2": 1, "y0": 2, "y1": 1}
    assert [(row["target_tokens"], row["selected_tokens"]) for row in rows] == [(65, 60), (65, 70)]
    copies, _ = taken_again(tmp_path / "c", documents, budget_tokens=1000, max_copies=2)
    assert set(copies.values()) == {2}


# -- what holds for any input --------------------------------------------------------------------------------

a_document = st.tuples(st.sampled_from("xyz"), st.sampled_from([0.0, 1.0, 2.0]), st.integers(1, 60), st.integers(0, 2))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(a_document, min_size=1, max_size=40),
    budget=st.integers(1, 1500),
    allocation=st.sampled_from(["proportional", "uniform"]),
    minimum=st.sampled_from([None, 30]),
    source_share=st.sampled_from([None, 0.4]),
    bottom=st.sampled_from([0.0, 0.3]),
    copies=st.integers(1, 3),
)
def test_the_budget_holds_whatever_is_asked(
    tmp_path: Path, rows: list[Any], budget: int, allocation: str, minimum: int | None, source_share: float | None,
    bottom: float, copies: int,
) -> None:  # fmt: skip
    documents = [
        {"doc_id": f"{number:03d}", "domain": domain, "cds": score, "doc_tokens": size, "source": str(source)}
        for number, (domain, score, size, source) in enumerate(rows)
    ]
    select: dict[str, Any] = {"budget_tokens": budget, "allocation": allocation, "max_source_share": source_share}
    select["max_copies"] = copies
    if allocation == "proportional":
        select["min_tokens_per_domain"] = minimum
    store, outcome = outcome_of(tmp_path, documents, drop_bottom=bottom, **select)
    taken = {row["doc_id"]: row["copies"] for row in store.read_shard(outcome.shards[0]).to_pylist()}
    spent = sum(document["doc_tokens"] * taken[document["doc_id"]] for document in documents)
    assert spent <= budget
    assert max(taken.values()) <= copies
    targets = store.read_shard(outcome.files[0]).to_pylist()
    assert sum(row["selected_tokens"] for row in targets) == spent
    if allocation == "proportional" and not all(row["exhausted"] for row in targets):
        assert budget - spent < 60  # less than the longest document
    if source_share is not None:
        for source in {document["source"] for document in documents}:
            of_source = [document for document in documents if document["source"] == source]
            assert sum(d["doc_tokens"] * taken[d["doc_id"]] for d in of_source) <= source_share * budget


# -- the real corpus -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[0, 1, 2])
def real(request: pytest.FixtureRequest) -> list[Document]:
    """The documents of the shared corpus under made-up scores; a token is taken to be four characters."""
    folder = SHARED / "corpus"
    if not folder.is_dir():
        pytest.skip("../shared/corpus is not here")
    chance, documents = random.Random(request.param), []
    for file in sorted(folder.glob("*.jsonl.zst")):
        lines = zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read().decode().splitlines()
        for number, line in enumerate(lines):
            record = json.loads(line)
            documents.append(
                {
                    "doc_id": f"{file.name}:{number:04d}",
                    "domain": record["meta"]["pile_set_name"],
                    "cds": chance.random(),
                    "doc_tokens": max(1, len(record["text"]) // 4),
                    "source": file.name,
                }
            )
    return documents


def test_on_the_real_corpus_every_allocation_hits_its_targets(tmp_path: Path, real: list[Document]) -> None:
    """What it prints (pytest -rP) are the figures: target, selected, and the miss in documents that did not fit."""
    budget = tokens(real) * 3 // 10
    domains = best_first(real)
    print(f"{len(real)} documents, {tokens(real):,} tokens, budget {budget:,}")

    rows = allocation_by_sql(tmp_path, real, budget_tokens=budget)
    taken = selected_by_sql(tmp_path, real, budget_tokens=budget)
    order = in_proportion(real, budget)
    fit = fitting(order, budget)
    assert taken == ids(fit)
    missed = budget - sum(row["selected_tokens"] for row in rows)
    assert 0 <= missed < order[len(fit)]["doc_tokens"]
    next_tokens = order[len(fit)]["doc_tokens"]
    print(f"proportional: {missed:,} tokens of the budget are left; the next document has {next_tokens:,}")
    misses = check_shares(real, taken, budget)
    for row in rows:
        best, domain = domains[row["domain"]], row["domain"]
        assert row["target_tokens"] == pytest.approx(tokens(best) * 0.3, abs=1)
        print(
            f"  {domain:<12} {row['target_tokens']:>9,} {row['selected_tokens']:>9,} "
            f"{100 * row['selected_tokens'] / tokens(best):5.1f} %  {float(misses[domain]):+.2f} documents"
        )

    rows = allocation_by_sql(tmp_path, real, allocation="uniform", budget_tokens=budget)
    print("uniform:")
    for row in rows:
        best = domains[row["domain"]]
        print(f"  {row['domain']:<12} {row['target_tokens']:>9,} {row['selected_tokens']:>9,} {row['exhausted']}")
        if row["exhausted"]:
            assert row["selected_tokens"] == tokens(best) <= row["target_tokens"]
        else:
            assert 0 <= row["short_tokens"] < best[row["documents"]]["doc_tokens"]
    assert any(row["exhausted"] and row["short_tokens"] for row in rows)

    quotas = [
        {"domain": domain, "bucket": bucket, "tokens": budget // (2 * len(domains))}
        for domain in domains
        for bucket in ([None, 8192], [8192, None])
    ]
    for row in allocation_by_sql(tmp_path, real, allocation="quotas", quotas=quotas, budget_tokens=budget):
        shortest, end = row["bucket_min"] or 0, row["bucket_max"] or 10**9
        asked = [document for document in domains[row["domain"]] if shortest <= document["doc_tokens"] < end]
        assert 0 <= row["short_tokens"] == row["target_tokens"] - row["selected_tokens"]
        assert row["selected_tokens"] == tokens(asked[: row["documents"]])
        assert row["exhausted"] == (row["documents"] == len(asked))
        assert row["exhausted"] or row["short_tokens"] < asked[row["documents"]]["doc_tokens"]

    taken = selected_by_sql(tmp_path, real, allocation="published", budget_tokens=budget)
    assert taken == published_loop(real, budget)
    print(f"published: {len(taken)} documents, {tokens(real, taken):,} tokens, as the loop takes them")


# -- configuration, and the whole way ------------------------------------------------------------------------


QUOTAS_ASKED = "select.allocation=quotas"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["select.allocation=best"], "select.allocation: input should be 'proportional', 'published', 'uniform'"),
        ([QUOTAS_ASKED], "select: allocation: quotas and the list of quotas need each other"),
        (["select.quotas=[{domain: x, tokens: 5}]"], "select: allocation: quotas and the list of quotas need"),
        (
            [QUOTAS_ASKED, "select.quotas=[{domain: x, tokens: 5}, {domain: x, bucket: [3, 9], tokens: 1}]"],
            "select.quotas: quotas 0 and 1 both ask for documents of 'x' of the same length",
        ),
        (
            [QUOTAS_ASKED, "select.quotas=[{domain: x, bucket: [9, 9], tokens: 5}]"],
            "select.quotas.0.bucket: [9, 9] holds no length",
        ),
        (
            [QUOTAS_ASKED, "select.quotas=[{domain: x, tokens: 5}]", "select.budget_tokens=4"],
            "select: the quotas ask for 5 tokens, more than budget_tokens (4)",
        ),
        (["select.quotas=[{domain: x, token: 5}]"], "select.quotas.0.token: unknown key; did you mean 'tokens'?"),
        (["select.drop_top=0.5", "select.drop_bottom=0.5"], "select: drop_top and drop_bottom leave nothing"),
        (["select.drop_top=1"], "select.drop_top: input should be less than 1"),
        (["select.allocation=uniform", "select.min_tokens_per_domain=5"], "select: min_tokens_per_domain is for"),
        (["select.allocation=published", "select.max_source_share=0.5"], "select: max_source_share does not go with"),
        (["select.allocation=published", "select.max_copies=2"], "select: max_copies above 1 needs a budget_tokens"),
        (["select.budget_tokens=null", "select.replay.share=0.1"], "select: replay.share is a share of budget_tokens"),
        (
            [
                *(QUOTAS_ASKED, "select.quotas=[{domain: x, tokens: 9}]", "select.budget_tokens=10"),
                "select.replay={share: 0.2}",
            ],
            "select: the quotas ask for 9 tokens, more than replay leaves of budget_tokens (8)",
        ),
        (["select.budget_tokens=null", "select.max_source_share=0.5"], "select: max_source_share is a share of"),
    ],
)  # fmt: skip
def test_what_cannot_be_selected_is_refused(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(overrides=overrides)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_neighbouring_quotas_do_not_overlap() -> None:
    quotas = [{"domain": "x", "bucket": bucket, "tokens": 5} for bucket in ([None, 3], [3, 9], [9, None])]
    SelectConfig.model_validate({"allocation": "quotas", "quotas": [*quotas, {"domain": "y", "tokens": 5}]})


def test_the_card_says_what_was_asked_for() -> None:
    select = SelectConfig(budget_tokens=9000, min_tokens_per_domain=1000, max_source_share=0.25, drop_bottom=0.1)
    assert selection_text(select.model_dump(), str) == (
        "Budget: 9,000 tokens; allocation `proportional`: the same top share of every domain; at least 1,000 tokens "
        "of every domain; at most 0.25 of it from one source file; without the bottom 0.1 of every domain's documents"
    )


def test_through_the_whole_dag(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    store = tmp_path / "store"
    record = ladm(*run_arguments(corpus, store, "select.max_source_share=0.5")).record
    folder = store / "runs" / record["run_id"]
    assert f"runs/{record['run_id']}/allocation.parquet" in record["files"]
    ranking = pq.read_table(folder / "ranking.parquet").to_pylist()
    allocation = pq.read_table(folder / "allocation.parquet").to_pylist()
    for row in allocation:
        taken = [r["doc_tokens"] for r in ranking if r["selected"] and r["domain"] == row["domain"]]
        assert (row["selected_tokens"], row["documents"]) == (sum(taken), len(taken))
        assert sum(taken) <= 1000  # each domain is one source
    assert record["stages"]["rank"]["short_tokens"] == 2000 - sum(row["selected_tokens"] for row in allocation)

    quotas = "[{domain: Letters, tokens: 10}, {domain: Poems, tokens: 100000}]"
    other = ladm(*run_arguments(
        corpus, store, "select.allocation=quotas", f"select.quotas={quotas}", "select.budget_tokens=null"
    )).record  # fmt: skip
    assert other["stages"]["score"]["run"] == 0
    query = "select domain, documents, exhausted from allocation order by domain"
    assert json.loads(ladm("sql", query, "--store", store, "--format", "json").out) == [
        {"domain": "Letters", "documents": 0, "exhausted": False},
        {"domain": "Poems", "documents": 3, "exhausted": True},
    ]
    card = (store / "runs" / other["run_id"] / "export" / "README.md").read_text()
    assert "1 of 2 targets are short for want of documents" in card
    assert "| Letters | any | 10 | 0 | 0 | 10 | the next document would not fit |" in card
