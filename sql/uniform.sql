-- Uniform allocation: the same number of tokens from every domain, however large the domain is.
--
-- Reads     pool, bands     (pool.sql)
-- Variable  budget_tokens   tokens to select at most; null for no limit
-- Makes     targets         one row a domain: budget // domains
--           candidates      the pool in the order of selection (take.sql); one lane a domain
--
-- Each domain's best documents, until the next would pass its part. What a domain cannot fill is short, and is not
-- given to the others.
create or replace temp table targets as
select
    domain,
    null::bigint as bucket_min,
    null::bigint as bucket_max,
    (getvariable('budget_tokens')::bigint // count(*) over ())::bigint as target_tokens
from bands;

create or replace temp view candidates as
select
    pool.place,
    pool.domain,
    pool.doc_tokens,
    pool.domain as lane,
    targets.target_tokens::hugeint as lane_tokens,
    1 as phase,
    pool.running_tokens::double / coalesce(targets.target_tokens, pool.pool_tokens)::double as turn
from pool
join targets using (domain);
