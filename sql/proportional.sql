-- Proportional allocation: the same top share of every domain (LADM, section 3.3), continuously.
--
-- Reads     running_pool, bands     (pool.sql)
-- Variables budget_tokens           tokens to select at most; null for no limit
--           min_tokens_per_domain   tokens that every domain gets first; null for none
-- Makes     targets                 one row a domain: the tokens that it should get
--           lanes                   one lane, the whole budget
--           candidates              the pool in the order of selection (take.sql)
--
-- Every domain's target is the same share of its tokens, so that the targets add up to the budget. Its best documents
-- up to the target come first, and the one that crosses the target next; both in the order of the share of their own
-- domain that they complete, until the next would pass the budget. What lies before the targets always fits into the
-- budget, and with all that cross them it is passed: so the budget is never exceeded and missed by less than one
-- document, and every domain misses its target by less than the document that crosses it.
--
-- With a minimum, each domain's best documents up to the one that reaches it come before all others, at the same
-- pace in every domain; where they are more than the common share, they are that domain's target, and the others'
-- share is of what is left.
--
-- Where documents were taken out of the queue (cap_sources.sql) the rest of the pool follows in the same order.
create or replace temp table proportional_pool as
select
    *,
    coalesce(running_tokens - doc_tokens < getvariable('min_tokens_per_domain')::hugeint, false) as in_minimum
from running_pool;

-- The common share solves: sum over the domains of max(minimum, share · tokens) = budget. Whichever domains are
-- taken to be the lifted ones, those of the largest minimum for their size first, solving for the share gives one
-- that is too large unless they are the right ones; so it is the smallest of these.
create or replace temp table shares as
with domains as (
    select
        domain_number,
        (sum(doc_tokens) filter (copy = 1))::double as tokens,
        coalesce(sum(doc_tokens) filter (in_minimum), 0)::double as minimum
    from proportional_pool
    group by domain_number
),
lifted as (
    select
        coalesce(sum(minimum) over those_before, 0) as lifted_minimum,
        sum(tokens) over () - coalesce(sum(tokens) over those_before, 0) as other_tokens
    from domains
    window those_before as (
        order by minimum / tokens desc, domain_number rows between unbounded preceding and 1 preceding
    )
),
common as (
    select min((getvariable('budget_tokens')::double - lifted_minimum) / other_tokens) as share from lifted
)
select domain_number, greatest(common.share * domains.tokens, domains.minimum) as share_tokens, common.share
from domains
cross join common;

create or replace temp table targets as
select
    domain_number as target,
    domain,
    null::bigint as bucket_min,
    null::bigint as bucket_max,
    case when share is not null then round(share_tokens)::bigint end as target_tokens
from shares
join bands using (domain_number);

create or replace temp view lanes as
select 0 as lane, getvariable('budget_tokens')::hugeint as lane_tokens;

create or replace temp table candidates as
select
    place,
    domain_number as target,
    copy,
    doc_tokens,
    0 as lane,
    case
        when in_minimum then 0
        -- without a budget all come before the target; rounded, or 30 tokens could lie before 30.000000001
        when share is null or running_tokens - doc_tokens < round(share_tokens, 3) then 1
        else 2
    end as phase,
    case
        when in_minimum then running_tokens::double / getvariable('min_tokens_per_domain')::double
        else running_tokens::double / pool_tokens::double
    end as turn
from proportional_pool
join shares using (domain_number);
