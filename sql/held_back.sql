-- Documents that are held back since they are unlike real text: their windows' mean distance is beyond the threshold.
--
-- Reads     documents_to_rank, scores, measures
-- Variable  gate_threshold
-- Adds to   not_ranked, with the mean distance
insert into not_ranked
select doc_id, any_value(domain), 'unlike real text', avg(gate_distance order by window_index) as distance
from documents_to_rank
join (select window_id, doc_id, window_index from scores) using (doc_id)
join measures using (window_id)
group by doc_id
having distance > getvariable('gate_threshold');
