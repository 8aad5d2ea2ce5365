-- Proportional allocation: the same top share of every domain (LADM, section 3.3), continuously.
--
-- Reads     pool                    (pool.sql)
-- Variables budget_tokens           tokens to select at most; null for no limit
--           min_tokens_per_domain   tokens that every domain gets first; null for none
-- Makes     targets                 one row a domain: the tokens that it should get
--           candidates              the pool in the order of selection (take.sql); one lane, the whole budget
--
-- Documents are taken in the order of the share of their own domain that they complete, until the next would pass
-- the budget. So the budget is never exceeded, it is missed by less than one document, and every domain gives its
-- best documents up to the same share of its tokens, that of the last document taken, less than one document short.
--
-- With a minimum, each domain's best documents up to the one that reaches it come before all others, at the same
-- pace in every domain; then the rest of the budget as above. So every domain gets the same top share, or the
-- minimum where that is more.
create or replace temp table candidates as
select
    doc_id,
    domain,
    doc_tokens,
    'budget' as lane,
    getvariable('budget_tokens')::hugeint as lane_tokens,
    case when in_minimum then 0 else 1 end as phase,
    case
        when in_minimum then running_tokens::double / getvariable('min_tokens_per_domain')::double
        else running_tokens::double / pool_tokens::double
    end as turn
from (
    select
        *,
        coalesce(running_tokens - doc_tokens < getvariable('min_tokens_per_domain')::hugeint, false) as in_minimum
    from pool
);

-- The common share solves: sum over the domains of max(minimum, share · tokens) = budget. Whichever domains are
-- taken to be the lifted ones, those of the largest minimum for their size first, solving for the share gives one
-- that is too large unless they are the right ones; so it is the smallest of these.
create or replace temp table targets as
with domains as (
    select
        domain,
        (sum(doc_tokens) filter (copy = 1))::double as tokens,
        least(coalesce(getvariable('min_tokens_per_domain')::double, 0), sum(doc_tokens)::double) as minimum
    from pool
    group by domain
),
lifted as (
    select
        coalesce(sum(minimum) over those_before, 0) as lifted_minimum,
        sum(tokens) over () - coalesce(sum(tokens) over those_before, 0) as other_tokens
    from domains
    window those_before as (
        order by minimum / tokens desc, domain rows between unbounded preceding and 1 preceding
    )
),
common as (
    select min((getvariable('budget_tokens')::double - lifted_minimum) / other_tokens) as share from lifted
)
select
    domains.domain,
    null::bigint as bucket_min,
    null::bigint as bucket_max,
    case
        when common.share is not null
        then round(
            greatest(common.share * domains.tokens, coalesce(getvariable('min_tokens_per_domain')::double, 0))
        )::bigint
    end as target_tokens
from domains
cross join common;
