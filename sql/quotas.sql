-- Quotas: so many tokens from documents of this length in this domain.
--
-- Reads     pool, bands   (pool.sql)
--           quotas        the configuration's list: domain, bucket_min, bucket_max (null: open), tokens; no overlaps
-- Makes     targets       one row a quota, also if no document fits it
--           lanes         one lane a quota
--           candidates    the documents that a quota asks for, in the order of selection (take.sql)
--
-- A bucket holds documents of bucket_min ≤ doc_tokens < bucket_max. Each quota takes its best documents until the
-- next would pass it. A document that no quota asks for is not selected.
create or replace temp table targets as
select quota as target, domain, bucket_min, bucket_max, tokens as target_tokens
from quotas;

create or replace temp view lanes as
select target as lane, target_tokens::hugeint as lane_tokens
from targets;

create or replace temp table candidates as
with asked as (
    select target, domain_number, bucket_min, bucket_max, target_tokens
    from targets
    join bands using (domain)
)
select
    place,
    target,
    copy,
    doc_tokens,
    target as lane,
    1 as phase,
    (sum(doc_tokens) over best_first)::double / target_tokens::double as turn
from pool
join asked
    on pool.domain_number = asked.domain_number
    and doc_tokens >= coalesce(bucket_min, 0)
    and (bucket_max is null or doc_tokens < bucket_max)
window best_first as (partition by target order by copy, pool_rank rows unbounded preceding);
