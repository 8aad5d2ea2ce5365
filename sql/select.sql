-- The ranking of all documents, with what was selected.
--
-- Reads     ranked    (rank.sql)
--           taken     (take.sql); documents that were never in question are not in it
-- Makes     ranking   ranked, with `selected`
create or replace temp table ranking as
select ranked.*, coalesce(taken.selected, false) as selected
from ranked
left join taken using (doc_id);
