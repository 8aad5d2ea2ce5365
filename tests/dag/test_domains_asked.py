"""Quotas and conditions for domains that the corpus does not have are told as soon as that can be known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer, Corpus, run_arguments

from ladm.flows.config import RunConfig
from ladm.flows.dag.preflight import check_domains
from ladm.tasks.condition import domains_named
from ladm.tasks.errors import ConfigError

Cli = Callable[..., Answer]


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("domain = 'Books'", {"Books"}),
        ("'Books' = Domain", {"Books"}),
        ("score > 0.1 and (domain in ('Wiki', 'Code') or domain = 'x')", {"Wiki", "Code", "x"}),
        ("case when domain = 'Code' then score > 1 else true end", {"Code"}),
        ("domain <> 'Books'", set()),
        ("domain not in ('a', 'b')", set()),
        ("lower(domain) = 'books'", set()),
        ("source = 'Books' and domain is not null", set()),
        ("domain = null", set()),
        (None, set()),
    ],
)
def test_domains_that_a_condition_names(where: str | None, named: set[str]) -> None:
    assert domains_named(where) == named


def config(*domains: object, **select: object) -> RunConfig:
    entries = [{"uri": f"{number}.jsonl", "domain": domain} for number, domain in enumerate(domains)]
    return RunConfig.model_validate({"sources": entries, "select": select})


BOOKS, WIKI = {"const": "Books"}, {"const": "Wiki"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"allocation": "quotas", "quotas": [{"domain": "Wiki", "tokens": 9}, {"domain": "Bokos", "tokens": 9}]},
            "select.quotas[1].domain: no source has the domain 'Bokos'; did you mean 'Books'? The domains of the "
            "sources are Books, Wiki",
        ),
        ({"where": "domain = 'books'"}, "select.where: no source has the domain 'books'; did you mean 'Books'?"),
        ({"where": "domain in ('Books', 'Man')"}, "select.where: no source has the domain 'Man'; the domains of"),
    ],
)
def test_domains_that_no_source_has_are_refused_where_all_are_constant(asked: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_domains(config(BOOKS, WIKI, BOOKS, **asked))
    assert str(refused.value).startswith(told)
    check_domains(config(BOOKS, "meta.kind", **asked))  # there they may be


def test_domains_that_are_there_pass() -> None:
    check_domains(config(BOOKS, WIKI))
    check_domains(config(BOOKS, WIKI, allocation="quotas", quotas=[{"domain": "Wiki", "tokens": 9}]))
    check_domains(config(BOOKS, WIKI, where="domain = 'Wiki' or domain <> 'Nowhere'"))


def test_a_run_is_refused_before_any_work(tmp_path: Path, corpus: Corpus, ladm: Cli) -> None:
    sources = f"sources={json.dumps([{'uri': str(corpus.folder), 'domain': BOOKS}])}"
    quotas = ["select.allocation=quotas", "select.quotas=[{domain: Wiki, tokens: 900}]", "select.budget_tokens=null"]
    answer = ladm(*run_arguments(corpus, tmp_path / "store", sources, *quotas))
    assert answer.code == 2
    assert "select.quotas[0].domain: no source has the domain 'Wiki'" in answer.err
    assert not (tmp_path / "store" / "runs").exists()
