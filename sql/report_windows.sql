-- The tokens of windows whose attention is to be pictured.
--
-- Reads     windows, scores   (views.sql)
-- Variable  window_ids        which
select windows.window_id, windows.doc_id, windows.n_tokens, scores.layers, windows.input_ids
from windows
join scores using (window_id)
where list_contains(getvariable('window_ids'), windows.window_id)
order by windows.window_id;
