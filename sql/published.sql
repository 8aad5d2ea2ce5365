-- The allocation of the released filter: whole percents of every domain's documents.
--
-- Reads     pool            (pool.sql)
-- Variable  budget_tokens   tokens to pass; null for no limit
-- Makes     targets         one row a domain; no target in tokens, since the filter has none
--           candidates      the pool in the order of selection (take.sql); one lane
--
-- For 1, 2, 3, … 100 percent: take the best floor(percent · documents / 100) documents of every domain, and stop
-- at the first percent whose documents together hold more tokens than the budget. That percent is still taken: this
-- is the one allocation that passes its budget, by less than one percent step, because the released filter does.
-- A domain of fewer than 100 documents gets nothing at the first percents.
create or replace temp table candidates as
with steps as (
    -- floor(percent · documents / 100) ≥ place  ⇔  percent ≥ 100 · place / documents
    select *, (100 * pool_rank + pool_documents - 1) // pool_documents as percent
    from pool
),
cumulative as (
    select percent, sum(sum(doc_tokens)) over (order by percent) as tokens
    from steps
    group by percent
),
stop as (
    -- no row passes: no limit, every document is taken
    select min(tokens) as tokens
    from cumulative
    where tokens > getvariable('budget_tokens')::hugeint
)
select
    steps.doc_id,
    steps.place,
    steps.domain,
    steps.doc_tokens,
    'percents' as lane,
    stop.tokens::hugeint as lane_tokens,
    1 as phase,
    steps.percent::double as turn
from steps
cross join stop;

create or replace temp table targets as
select domain, null::bigint as bucket_min, null::bigint as bucket_max, null::bigint as target_tokens
from pool
group by domain;
