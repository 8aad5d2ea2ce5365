-- What may be selected: every domain's ranking without the bands at its top and its bottom.
--
-- Reads     ranked        (rank.sql)
-- Variables drop_top      share (0 ≤ x < 1) of each domain's documents left out from the top of its ranking
--           drop_bottom   the same from the bottom; both are counted as floor(share · documents)
--           max_copies    times that a document may be selected
-- Makes     bands         one row a domain: what is left out of it, and what is left
--           pool          one row a copy of a document that is left: the document's place among those left in its
--                         domain, `running_tokens`, the tokens of it and those before it, and `pool_tokens`, those of
--                         one copy of all
--
-- All documents of a domain come once, best first, before any comes again.
--
-- Rounding before flooring: 0.29 of 100 documents are 29, though 0.29 * 100 is 28.999… in floating point.
create or replace temp table bands as
with cuts as (
    select
        domain,
        floor(round(getvariable('drop_top')::double * domain_documents, 6))::bigint as dropped_top,
        domain_documents - floor(round(getvariable('drop_bottom')::double * domain_documents, 6))::bigint as last_rank
    from ranked
    where rank = 1
)
select
    cuts.domain,
    dropped_top,
    last_rank - dropped_top as pool_documents,
    coalesce(above.running_tokens, 0) as tokens_above,
    last.running_tokens - tokens_above as pool_tokens
from cuts
left join ranked as above on above.domain = cuts.domain and above.rank = cuts.dropped_top
join ranked as last on last.domain = cuts.domain and last.rank = cuts.last_rank;

create or replace temp view pool as
select
    place,
    domain,
    doc_tokens,
    rank - dropped_top as pool_rank,
    pool_documents,
    (copy - 1) * pool_tokens + running_tokens - tokens_above as running_tokens,
    pool_tokens,
    copy
from ranked
join bands using (domain)
cross join range(1, getvariable('max_copies')::bigint + 1) as copies(copy)
where rank > dropped_top and rank <= dropped_top + pool_documents;
