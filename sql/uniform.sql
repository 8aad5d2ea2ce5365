-- Uniform allocation: the same number of tokens from every domain, however large the domain is.
--
-- Reads     running_pool, bands   (pool.sql)
-- Variable  budget_tokens         tokens to select at most; null for no limit
-- Makes     targets               one row a domain: budget // domains
--           lanes                 one lane a domain
--           candidates            the pool in the order of selection (take.sql)
--
-- Each domain's best documents, until the next would pass its part. What a domain cannot fill is short, and is not
-- given to the others.
create or replace temp table targets as
select
    domain_number as target,
    domain,
    null::bigint as bucket_min,
    null::bigint as bucket_max,
    (getvariable('budget_tokens')::bigint // count(*) over ())::bigint as target_tokens
from bands;

create or replace temp view lanes as
select target as lane, target_tokens::hugeint as lane_tokens
from targets;

create or replace temp view candidates as
select
    place,
    target,
    copy,
    doc_tokens,
    target as lane,
    1 as phase,
    running_tokens::double / coalesce(target_tokens, pool_tokens)::double as turn
from running_pool
join targets on target = domain_number;
