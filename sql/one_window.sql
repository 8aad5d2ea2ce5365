-- Documents with their scores, where none has more than one window: nothing is to be put together, which would be a
-- third of the time of ranking.
--
-- Reads     window_scores      (window_scores.sql)
-- Makes     documents_scored   one row a document, as many_windows.sql would
create or replace temp view documents_scored as
select doc_id, domain, window_score as score, 1::bigint as windows, doc_tokens, doc_tokens_exact
from window_scores;
