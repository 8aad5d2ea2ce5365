-- What the dataset card says of the documents that were scored and are held back from the ranking, by reason and domain.
--
-- Reads  not_ranked   (tasks/schema.py)
select
    reason,
    domain,
    count(*) as documents,
    sum(doc_tokens)::bigint as tokens
from not_ranked
group by all
order by reason, domain;
