-- Ranks documents within their domain by the scores of their windows.
--
-- Reads     scores      one row a window (views.sql)
-- Variable  aggregate   max | mean | first: a document's score from its windows
-- Makes     ranked      one row a document; rank 1 is the best of its domain
--
-- Ties are broken by doc_id, so that the same scores give the same ranking on any machine.
create or replace temp table ranked as
with documents_scored as (
    select
        doc_id,
        any_value(domain) as domain,
        case getvariable('aggregate')
            when 'max' then max(cds)
            when 'mean' then avg(cds order by window_index)
            when 'first' then arg_min(cds, window_index)
        end as score,
        count(*) as windows,
        any_value(doc_tokens) as doc_tokens,
        bool_and(doc_tokens_exact) as doc_tokens_exact
    from scores
    group by doc_id
)
select
    doc_id,
    domain,
    score,
    windows,
    doc_tokens,
    doc_tokens_exact,
    row_number() over best_first as rank,
    count(*) over (partition by domain) as domain_documents,
    -- the share of the domain's tokens that this document and the better ones hold
    (sum(doc_tokens) over best_first)::double / (sum(doc_tokens) over (partition by domain))::double as top_share
from documents_scored
window best_first as (partition by domain order by score desc, doc_id rows unbounded preceding);
