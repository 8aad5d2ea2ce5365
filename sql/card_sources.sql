-- The source files of the selected documents, replayed ones too, most tokens first.
--
-- Reads  ranking, documents
select
    documents.source,
    count(*) as documents,
    sum(ranking.copies)::bigint as copies,
    sum(ranking.doc_tokens * ranking.copies)::bigint as tokens
from ranking
join documents using (doc_id)
where ranking.selected
group by all
order by tokens desc, documents.source;
