-- What may be selected: every domain's ranking without the bands at its top and its bottom.
--
-- Reads     ranked        (rank.sql)
-- Variables drop_top      share (0 ≤ x < 1) of each domain's documents left out from the top of its ranking
--           drop_bottom   the same from the bottom; both are counted as floor(share · documents)
--           max_copies    times that a document may be selected
-- Makes     pool          one row a copy of a document that is left: the document's place among those left in its
--                         domain, `running_tokens`, the tokens of it and those before it, and `pool_tokens`, those of
--                         one copy of all
--
-- All documents of a domain come once, best first, before any comes again.
--
-- Rounding before flooring: 0.29 of 100 documents are 29, though 0.29 * 100 is 28.999… in floating point.
create or replace temp table pool as
with banded as (
    select
        *,
        floor(round(getvariable('drop_top')::double * domain_documents, 6))::bigint as dropped_top,
        floor(round(getvariable('drop_bottom')::double * domain_documents, 6))::bigint as dropped_bottom
    from ranked
),
once as (
    select
        doc_id,
        domain,
        doc_tokens,
        rank - dropped_top as pool_rank,
        domain_documents - dropped_top - dropped_bottom as pool_documents,
        sum(doc_tokens) over best_first as running_tokens,
        sum(doc_tokens) over (partition by domain) as pool_tokens
    from banded
    where rank > dropped_top and rank <= domain_documents - dropped_bottom
    window best_first as (partition by domain order by rank rows unbounded preceding)
)
select once.* replace ((copy - 1) * pool_tokens + running_tokens as running_tokens), copy
from once
cross join range(1, getvariable('max_copies')::bigint + 1) as copies(copy);
