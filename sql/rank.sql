-- Ranks documents within their domain by their scores.
--
-- Reads     documents_scored   (one_window.sql or many_windows.sql)
-- Makes     ranked             one row a document; rank 1 is the best of its domain; `running_tokens`, the tokens of it
--                              and the better ones; `place`, a number that no two documents share, by which they are
--                              joined
--
-- Ties are broken by doc_id, so that the same scores give the same ranking on any machine.
create or replace temp table ranked as
with documents as materialized (
    from documents_scored
),
domains as (
    select
        domain,
        count(*) as domain_documents,
        sum(doc_tokens) as domain_tokens,
        sum(count(*)) over (order by domain rows unbounded preceding) - count(*) as documents_before
    from documents
    group by domain
)
select
    doc_id,
    domain,
    score,
    windows,
    doc_tokens,
    doc_tokens_exact,
    row_number() over best_first as rank,
    domain_documents,
    (sum(doc_tokens) over best_first) as running_tokens,
    -- the share of the domain's tokens that this document and the better ones hold
    running_tokens::double / domain_tokens::double as top_share,
    (documents_before + rank)::bigint as place
from documents
join domains using (domain)
window best_first as (partition by domain order by score desc, doc_id rows unbounded preceding);
