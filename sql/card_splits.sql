-- Between which places the selected documents lie that are split by their place (export.sql).
--
-- Reads  ranking, documents
select
    min(md5_number_lower('validation:' || documents.sha256) / 2.0 ** 64) as lowest,
    max(md5_number_lower('validation:' || documents.sha256) / 2.0 ** 64) as highest
from ranking
join documents using (doc_id)
where ranking.selected;
