-- The ranking of all documents, with what was selected.
--
-- Reads     ranked, running   (rank.sql)
--           taken             (take.sql); documents that were never in question are not in it
-- Makes     selected          how many `copies` of a document are in the selection; only of those that are
--           replayed          the documents beside the ranked ones: none so far (replay.sql)
--           ranking           ranked, with `top_share`, `selected` and `copies`, and the replayed documents
--
-- The ranking is a view: a table of it would hold every doc_id a second time.
create or replace temp table selected as
select place, count(*) as copies
from taken
where selected
group by place;

create or replace temp view long_ranking as
select
    ranked.*,
    -- the share of the domain's tokens that this document and the better ones hold
    running_tokens::double / domain_tokens::double as top_share,
    selected.place is not null as selected,
    coalesce(copies, 0) as copies,
    'long' as role
from ranked
join running using (place)
left join selected using (place);

create or replace temp table replayed as
from long_ranking
limit 0;

create or replace temp view ranking as
from long_ranking
union all
from replayed;
