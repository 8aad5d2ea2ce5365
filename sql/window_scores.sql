-- The score of every window by which its document is ranked, where that is one of `ladm`'s own.
--
-- Reads     scores          one row a window (views.sql)
-- Variable  rank_by         ladm | order: the score that counts
-- Makes     window_scores   scores, with `window_score`
create or replace temp view window_scores as
select
    *,
    case getvariable('rank_by')
        when 'order' then order_score
        else coalesce(dependency_score, cds)  -- a calibration says when the first is better
    end as window_score
from scores;
