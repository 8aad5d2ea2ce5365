-- The short documents that are replayed beside the selected long ones.
--
-- Reads     ranking           (select.sql)
--           replayed          (select.sql); the replayed documents are added to it, and so to the ranking
--           allocation        (allocation.sql); a row a domain is added to it
--           short_documents   doc_id, domain, doc_tokens of the documents that fill no window (tasks/stages/short.py)
-- Variables replay_tokens     tokens of short documents to select at most
--           replay_seed       another seed takes others
-- Makes     replay_targets    one row a domain of the selection: replay_tokens in the proportions of the selected tokens
--           replay            the short documents of these domains, in their random order, with `selected`
--
-- Of each domain a random sample: in the order of a hash of seed and doc_id, which is the same on every machine, until
-- the next would pass the domain's tokens. What a domain cannot fill is short, and is not given to the others.
create or replace temp table replay_targets as
select
    domain,
    (
        getvariable('replay_tokens')::hugeint * sum(doc_tokens * copies)::hugeint
        // sum(sum(doc_tokens * copies)) over ()::hugeint
    )::bigint as target_tokens
from ranking
where selected
group by domain;

create or replace temp table replay as
select
    doc_id,
    domain,
    doc_tokens,
    row_number() over shuffled as place,
    sum(doc_tokens) over shuffled <= target_tokens as selected
from short_documents
join replay_targets using (domain)
window shuffled as (
    partition by domain
    order by md5(concat(getvariable('replay_seed'), ' ', doc_id)), doc_id
    rows unbounded preceding
);

insert into allocation by name
select
    replay_targets.domain,
    target_tokens,
    coalesce(sum(replay.doc_tokens) filter (selected), 0)::bigint as selected_tokens,
    count(*) filter (selected) as documents,
    (target_tokens - coalesce(sum(replay.doc_tokens) filter (selected), 0))::bigint as short_tokens,
    coalesce(bool_and(selected), true) as exhausted,
    'replay' as role
from replay_targets
left join replay using (domain)
group by replay_targets.domain, target_tokens;

insert into replayed by name
select
    replay.doc_id,
    replay.domain,
    0 as windows,
    replay.doc_tokens,
    true as doc_tokens_exact,
    ranked.documents + replay.place as rank,
    ranked.documents as domain_documents,
    true as selected,
    1 as copies,
    'replay' as role
from replay
join (select domain, count(*) as documents from ranking group by domain) as ranked using (domain)
where replay.selected;
