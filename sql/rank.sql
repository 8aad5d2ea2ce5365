-- Ranks documents within their domain by their scores.
--
-- Reads     documents_to_rank  (not_ranked.sql)
-- Makes     domains            one row a domain: its number, in the order of names; its documents, and their windows and
--                              tokens; and `documents_before` and `tokens_before`, those of the domains before it
--           sorted             the documents by domain, best first
--           running            the tokens of each document of its domain and the better ones, by `place`
--           ranked             one row a document; rank 1 is the best of its domain; `place`, a number that no two
--                              documents share, by which they are joined: the row's in `sorted`
--
-- Ties are broken by doc_id, so that the same scores give the same ranking on any machine.
--
-- Everything after this works on numbers; the ids are sorted and copied once, here. A window function over the ids
-- would take three times as long.
create or replace temp table domains as
select
    domain,
    (row_number() over by_name)::integer as domain_number,
    count(*) as domain_documents,
    sum(windows)::bigint as domain_windows,
    sum(doc_tokens) as domain_tokens,
    coalesce(sum(count(*)) over (by_name rows between unbounded preceding and 1 preceding), 0)::bigint as documents_before,
    coalesce(sum(sum(doc_tokens)) over (by_name rows between unbounded preceding and 1 preceding), 0) as tokens_before
from documents_to_rank
group by domain
window by_name as (order by domain);

-- A table made in an order keeps it: its `rowid` counts its rows from 0.
create or replace temp table sorted as
select doc_id, domain_number, score, windows, doc_tokens, doc_tokens_exact
from documents_to_rank
join domains using (domain)
order by domain_number, score desc, doc_id;

create or replace temp table running as
with all_domains as (
    select rowid as place, domain_number, sum(doc_tokens) over (order by rowid rows unbounded preceding) as tokens
    from sorted
)
select place, tokens - tokens_before as running_tokens
from all_domains
join domains using (domain_number);

create or replace temp view ranked as
select
    sorted.*,
    domain,
    sorted.rowid as place,
    sorted.rowid - documents_before + 1 as rank,
    domain_documents,
    domain_tokens
from sorted
join domains using (domain_number);
