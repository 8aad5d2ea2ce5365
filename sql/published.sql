-- The allocation of the released filter: whole percents of every domain's documents.
--
-- Reads     pool, bands     (pool.sql)
-- Variable  budget_tokens   tokens to pass; null for no limit
-- Makes     targets         one row a domain; no target in tokens, since the filter has none
--           lanes           one row: the tokens that the filter takes; null for all
--           candidates      the pool in the order of selection (take.sql); one lane
--
-- For 1, 2, 3, … 100 percent: take the best floor(percent · documents / 100) documents of every domain, and stop
-- at the first percent whose documents together hold more tokens than the budget. That percent is still taken: this
-- is the one allocation that passes its budget, by less than one percent step, because the released filter does.
-- A domain of fewer than 100 documents gets nothing at the first percents.
create or replace temp view candidates as
select
    place,
    domain_number as target,
    copy,
    doc_tokens,
    0 as lane,
    1 as phase,
    -- the percent: floor(percent · documents / 100) ≥ rank  ⇔  percent ≥ 100 · rank / documents
    ((100 * pool_rank + pool_documents - 1) // pool_documents)::double as turn
from pool;

create or replace temp table lanes as
with cumulative as (
    select turn, sum(sum(doc_tokens)) over (order by turn) as tokens
    from candidates
    group by turn
)
-- no row passes: no limit, every document is taken
select 0 as lane, min(tokens)::hugeint as lane_tokens
from cumulative
where tokens > getvariable('budget_tokens')::hugeint;

create or replace temp table targets as
select
    domain_number as target,
    domain,
    null::bigint as bucket_min,
    null::bigint as bucket_max,
    null::bigint as target_tokens
from bands;
