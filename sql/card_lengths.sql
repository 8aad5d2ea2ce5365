-- What the dataset card says of each domain's documents by length, in buckets that double; the replayed ones apart.
--
-- Reads  ranking   (select.sql, replay.sql)
select
    role,
    domain,
    (2 ** floor(log2(greatest(doc_tokens, 1))))::bigint as bucket_min,
    count(*) as documents,
    sum(doc_tokens)::bigint as tokens,
    count(*) filter (selected) as selected_documents,
    sum(copies)::bigint as selected_rows,
    sum(doc_tokens * copies)::bigint as selected_tokens
from ranking
group by all
order by role, domain, bucket_min;
