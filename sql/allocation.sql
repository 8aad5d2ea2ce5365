-- What every domain, or every quota, should have got, what it got, and what it is short of.
--
-- Reads     targets      (the allocation's file)
--           taken        (take.sql)
-- Makes     allocation   one row a target
--
-- `exhausted` tells why a target is short: true when every document that could be taken was taken (after bands and
-- the limit on sources), false when the next document would not have fitted.
--
-- A document's first copy comes before the others in every order of selection, so that it is selected if any is.
create or replace temp table allocation as
with got as (
    select
        target,
        coalesce(sum(doc_tokens) filter (selected), 0) as tokens,
        count(*) filter (selected and copy = 1) as documents,
        bool_and(selected) as exhausted
    from taken
    group by target
)
select
    domain,
    bucket_min,
    bucket_max,
    target_tokens,
    coalesce(tokens, 0)::bigint as selected_tokens,
    coalesce(documents, 0) as documents,
    greatest(0, coalesce(target_tokens, 0) - selected_tokens)::bigint as short_tokens,
    coalesce(exhausted, true) as exhausted,
    'long' as role
from targets
left join got using (target)
order by domain, bucket_min;
