-- The ranking of all documents, with what was selected.
--
-- Reads     ranked    (rank.sql)
--           taken     (take.sql); documents that were never in question are not in it
-- Makes     ranking   ranked, with `selected`, and `copies`, how often it is in the selection
create or replace temp table ranking as
select ranked.*, coalesce(copies, 0) > 0 as selected, coalesce(copies, 0) as copies, 'long' as role
from ranked
left join (
    select place, count(*) as copies
    from taken
    where selected
    group by place
) using (place);
