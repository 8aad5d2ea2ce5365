-- The score of every window by which its document is ranked, where another scorer measured it. A window that it could
-- not measure is left out.
--
-- Reads     scores, measured   one row a window each; `measured` holds window_id and `value`
-- Makes     window_scores      scores, with `window_score`
create or replace temp view window_scores as
select scores.*, measured.value as window_score
from scores
join measured using (window_id)
where measured.value is not null;
