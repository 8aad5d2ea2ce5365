-- What every domain, or every quota, should have got, what it got, and what it is short of.
--
-- Reads     targets      (the allocation's file)
--           taken        (take.sql)
-- Makes     allocation   one row a target
--
-- `exhausted` tells why a target is short: true when every document that could be taken was taken (after bands and
-- the limit on sources), false when the next document would not have fitted.
create or replace temp table allocation as
select
    targets.domain,
    targets.bucket_min,
    targets.bucket_max,
    targets.target_tokens,
    coalesce(sum(taken.doc_tokens) filter (taken.selected), 0)::bigint as selected_tokens,
    count(distinct taken.place) filter (taken.selected) as documents,
    greatest(
        0, coalesce(targets.target_tokens, 0) - coalesce(sum(taken.doc_tokens) filter (taken.selected), 0)
    )::bigint as short_tokens,
    coalesce(bool_and(taken.selected), true) as exhausted,
    'long' as role
from targets
left join taken
    on taken.domain = targets.domain
    and taken.doc_tokens >= coalesce(targets.bucket_min, 0)
    and (targets.bucket_max is null or taken.doc_tokens < targets.bucket_max)
group by targets.domain, targets.bucket_min, targets.bucket_max, targets.target_tokens
order by targets.domain, targets.bucket_min;
