-- Which documents hold a benchmark passage, and which are exact duplicates of an earlier one.
--
-- Reads     signatures        one row a document (tasks/schema.py)
--           window_documents  the documents to be compared: shard, doc_id, windows (0: a short one, to be replayed)
-- Variable  exact             whether exact duplicates are dropped
-- Makes     placed            one row a document to be compared, in the order that decides who stays: those with
--                             windows before the short ones, then by source file, line and doc_id; place 1 is first
--           repeats           place, reason, twin_place, similarity: those to be dropped
--
-- The order depends on nothing but the documents, so any number of workers finds the same. A document that holds a
-- benchmark passage is no twin for others: they may be without it.
create or replace temp table placed as
select
    row_number() over (order by windows = 0, source, line, doc_id) as place,
    shard,
    doc_id,
    domain,
    source,
    line,
    windows,
    content,
    passage_source,
    passage_line,
    passage_share
from signatures
join window_documents using (doc_id);

create or replace temp table repeats as
select place, 'benchmark passage' as reason, null::bigint as twin_place, passage_share as similarity
from placed
where passage_source is not null
union all
select place, 'exact duplicate', first_place, 1.0
from (
    select place, min(place) over (partition by content) as first_place
    from placed
    where passage_source is null and getvariable('exact')::boolean
)
where place > first_place;
