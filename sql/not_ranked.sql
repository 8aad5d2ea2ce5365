-- Documents that are held back from the ranking: none so far. Whatever holds some back adds them, and sees those that
-- nothing before it held back.
--
-- Reads     documents_scored    (one_window.sql or many_windows.sql)
-- Makes     not_ranked          one row a document that is held back: its reason, and how far it lies from what would
--                               have let it pass (null where there is no such thing)
--           documents_to_rank   the others
create or replace temp table not_ranked (doc_id varchar, domain varchar, reason varchar, distance double);

create or replace temp view documents_to_rank as
from documents_scored
anti join not_ranked using (doc_id);
