-- Keeps any one source file from holding more than its share of the selection.
--
-- Reads     candidates      (the allocation's file)
--           ranked          (rank.sql), for their `doc_id`
--           documents       the documents that passed the length filter, for their `source`
-- Variable  source_tokens   tokens that may come from one source file
-- Makes     queue           the candidates that take.sql may take
--
-- Of each source the documents that come first in the order of selection, until the next would pass the limit.
-- A document that is over the limit all by itself does not count, or it would shut out the rest of its file.
create or replace temp table queue as
select candidates.*
from candidates
join (select place, doc_id from ranked) as ids using (place)
join documents using (doc_id)
where candidates.doc_tokens <= getvariable('source_tokens')::hugeint
qualify
    sum(candidates.doc_tokens) over (
        partition by documents.source
        order by candidates.phase, candidates.turn, doc_id
        rows unbounded preceding
    ) <= getvariable('source_tokens')::hugeint;
