-- Takes documents in the order of selection, lane by lane, until the next would pass the lane's tokens.
--
-- Reads     queue   one row a copy of a document: its lane, the lane's limit (null: none), and its place in the order
--                   (phase, turn); the allocation's candidates, or what cap_sources.sql left of them
-- Makes     taken   the queue, with `selected`
--
-- It stops for good at the first document that does not fit: a worse document never takes the place of a better
-- one for being shorter. Ties are broken by doc_id, so that every machine selects the same.
create or replace temp table taken as
select
    doc_id,
    domain,
    doc_tokens,
    coalesce(
        sum(doc_tokens) over (
            partition by lane order by phase, turn, doc_id rows unbounded preceding
        ) <= lane_tokens,
        true
    ) as selected
from queue;
