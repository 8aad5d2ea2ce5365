-- What the dataset card says of each domain's ranked documents: how much was ranked, how much selected, and where the cut lies.
--
-- Reads  ranking   (select.sql)
select
    domain,
    count(*) as documents,
    sum(doc_tokens)::bigint as tokens,
    count(*) filter (selected) as selected_documents,
    coalesce(sum(copies), 0)::bigint as selected_rows,
    sum(doc_tokens * copies)::bigint as selected_tokens,
    min(score) as lowest,
    median(score) as middle,
    max(score) as highest,
    quantile_cont(score, [0.05, 0.25, 0.75, 0.95]) as quantiles,
    min(score) filter (selected) as threshold
from ranking
where role = 'long'
group by domain
order by domain;
