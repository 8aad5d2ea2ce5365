-- What may be selected: every domain's ranking without the bands at its top and its bottom.
--
-- Reads     domains, ranked, running   (rank.sql)
-- Variables drop_top       share (0 ≤ x < 1) of each domain's documents left out from the top of its ranking
--           drop_bottom    the same from the bottom; both are counted as floor(share · documents)
--           max_copies     times that a document may be selected
-- Makes     bands          one row a domain: what is left out of it, and what is left
--           pool           one row a copy of a document that is left, with its place among those left in its domain
--           running_pool   the same with `running_tokens`, the tokens of it and those before it, and `pool_tokens`,
--                          those of one copy of all
--
-- All documents of a domain come once, best first, before any comes again.
--
-- Rounding before flooring: 0.29 of 100 documents are 29, though 0.29 * 100 is 28.999… in floating point.
create or replace temp table bands as
with cuts as (
    select
        domain,
        domain_number,
        documents_before - 1 as place_before,
        floor(round(getvariable('drop_top')::double * domain_documents, 6))::bigint as dropped_top,
        domain_documents - floor(round(getvariable('drop_bottom')::double * domain_documents, 6))::bigint as last_rank
    from domains
)
select
    domain,
    domain_number,
    dropped_top,
    last_rank - dropped_top as pool_documents,
    case when dropped_top > 0 then above.running_tokens else 0 end as tokens_above,
    last.running_tokens - tokens_above as pool_tokens
from cuts
left join running as above on above.place = place_before + dropped_top
join running as last on last.place = place_before + last_rank;

create or replace temp view pool as
select
    place,
    ranked.domain_number,
    doc_tokens,
    rank - dropped_top as pool_rank,
    pool_documents,
    tokens_above,
    pool_tokens,
    copy
from ranked
join bands using (domain_number)
cross join range(1, getvariable('max_copies')::bigint + 1) as copies(copy)
where rank > dropped_top and rank <= dropped_top + pool_documents;

create or replace temp view running_pool as
select pool.*, (copy - 1) * pool_tokens + running_tokens - tokens_above as running_tokens
from pool
join running using (place);
