-- The documents that are not scored: why, and what is kept in their place.
--
-- Reads     placed, repeats   (repeats.sql; near duplicates have been added to repeats)
-- Makes     dropped           one row a document, as in tasks/schema.py, and its shard of windows
create or replace temp table dropped as
select
    placed.shard,
    placed.doc_id,
    placed.domain,
    placed.source,
    placed.line,
    repeats.reason,
    repeats.similarity,
    twin.doc_id as twin_id,
    coalesce(twin.source, placed.passage_source) as twin_source,
    coalesce(twin.line, placed.passage_line) as twin_line,
    placed.windows
from repeats
join placed using (place)
left join placed as twin on twin.place = repeats.twin_place;
