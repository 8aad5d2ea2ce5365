-- The score of every window by which its document is ranked.
--
-- Reads     scores          one row a window (views.sql)
-- Variable  rank_by         ladm | order | longattn | prolong | longfilter | gzip | random: the score that counts
-- Makes     window_scores   scores, with `window_score`
create or replace temp view window_scores as
select
    *,
    case getvariable('rank_by')
        when 'order' then order_score
        when 'longattn' then longattn
        when 'prolong' then prolong
        when 'longfilter' then longfilter
        when 'gzip' then gzip
        when 'random' then random
        else coalesce(dependency_score, cds)  -- a calibration says when the first is better
    end as window_score
from scores;
