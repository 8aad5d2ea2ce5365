-- What the dataset card says of each domain: how much was ranked, how much selected, and where the cut lies.
--
-- Reads  ranking   (select.sql)
select
    domain,
    count(*) as documents,
    sum(doc_tokens)::bigint as tokens,
    count(*) filter (selected) as selected_documents,
    coalesce(sum(doc_tokens) filter (selected), 0)::bigint as selected_tokens,
    min(score) as lowest,
    median(score) as middle,
    max(score) as highest,
    quantile_cont(score, [0.05, 0.25, 0.75, 0.95]) as quantiles,
    min(score) filter (selected) as threshold
from ranking
group by domain
order by domain;
