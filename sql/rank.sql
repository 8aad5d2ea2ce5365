-- Ranks documents within their domain by the scores of their windows.
--
-- Reads     scores      one row a window (views.sql)
-- Variables rank_by     ladm | order | longattn | prolong | longfilter | gzip | random: the score that counts
--           aggregate   max | mean | first: a document's score from its windows
-- Makes     ranked      one row a document; rank 1 is the best of its domain; `running_tokens`, the tokens of it and the
--                       better ones; `place`, a number that no two documents share, by which they are joined
--
-- Ties are broken by doc_id, so that the same scores give the same ranking on any machine.
create or replace temp table ranked as
with windows_scored as (
    select
        *,
        case getvariable('rank_by')
            when 'order' then order_score
            when 'longattn' then longattn
            when 'prolong' then prolong
            when 'longfilter' then longfilter
            when 'gzip' then gzip
            when 'random' then random
            else coalesce(dependency_score, cds)  -- a calibration says when the first is better
        end as window_score
    from scores
),
documents_scored as materialized (
    select
        doc_id,
        any_value(domain) as domain,
        case getvariable('aggregate')
            when 'max' then max(window_score)
            when 'mean' then avg(window_score order by window_index)
            when 'first' then arg_min(window_score, window_index)
        end as score,
        count(*) as windows,
        any_value(doc_tokens) as doc_tokens,
        bool_and(doc_tokens_exact) as doc_tokens_exact
    from windows_scored
    group by doc_id
),
domains as (
    select
        domain,
        count(*) as domain_documents,
        sum(doc_tokens) as domain_tokens,
        sum(count(*)) over (order by domain rows unbounded preceding) - count(*) as documents_before
    from documents_scored
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
from documents_scored
join domains using (domain)
window best_first as (partition by domain order by score desc, doc_id rows unbounded preceding);
