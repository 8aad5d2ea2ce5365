-- The selected documents with their text and where they came from, best first within each domain, each as often as
-- it was selected.
--
-- Reads  ranking     (select.sql)
--        documents   the documents that passed the length filter
select
    ranking.doc_id,
    ranking.domain,
    ranking.rank,
    ranking.score,
    ranking.windows,
    ranking.doc_tokens,
    ranking.doc_tokens_exact,
    documents.text,
    documents.source,
    documents.line,
    documents."offset",
    documents.sha256,
    documents.bytes,
    documents.meta
from ranking
join documents using (doc_id)
cross join unnest(range(ranking.copies))
where ranking.selected
order by ranking.domain, ranking.rank;
