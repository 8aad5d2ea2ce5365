-- What the dataset card says of each domain's documents by length, in buckets that double.
--
-- Reads  ranking   (select.sql)
select
    domain,
    (2 ** floor(log2(greatest(doc_tokens, 1))))::bigint as bucket_min,
    count(*) as documents,
    sum(doc_tokens)::bigint as tokens,
    count(*) filter (selected) as selected_documents,
    coalesce(sum(doc_tokens) filter (selected), 0)::bigint as selected_tokens
from ranking
group by all
order by domain, bucket_min;
