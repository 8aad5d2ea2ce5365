-- Quotas: so many tokens from documents of this length in this domain.
--
-- Reads     pool         (pool.sql)
--           quotas       the configuration's list: domain, bucket_min, bucket_max (null: open), tokens; no overlaps
-- Makes     targets      one row a quota, also if no document fits it
--           candidates   the documents that a quota asks for, in the order of selection (take.sql); one lane a quota
--
-- A bucket holds documents of bucket_min ≤ doc_tokens < bucket_max. Each quota takes its best documents until the
-- next would pass it. A document that no quota asks for is not selected.
create or replace temp table targets as
select domain, bucket_min, bucket_max, tokens as target_tokens
from quotas;

create or replace temp table candidates as
select
    pool.place,
    pool.domain,
    pool.doc_tokens,
    quotas.quota::varchar as lane,
    quotas.tokens::hugeint as lane_tokens,
    1 as phase,
    (sum(pool.doc_tokens) over best_first)::double / quotas.tokens::double as turn
from pool
join quotas
    on pool.domain = quotas.domain
    and pool.doc_tokens >= coalesce(quotas.bucket_min, 0)
    and (quotas.bucket_max is null or pool.doc_tokens < quotas.bucket_max)
window best_first as (partition by quotas.quota order by pool.copy, pool.pool_rank rows unbounded preceding);
