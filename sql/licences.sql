-- The licences that the selected documents' own metadata names, most tokens first.
--
-- Reads  ranking, documents
select
    coalesce(
        json_extract_string(documents.meta, '$.meta.license'),
        json_extract_string(documents.meta, '$.license'),
        'not stated'
    ) as licence,
    count(*) as documents,
    sum(ranking.copies)::bigint as copies,
    sum(ranking.doc_tokens * ranking.copies)::bigint as tokens
from ranking
join documents using (doc_id)
where ranking.selected
group by all
order by tokens desc, licence;
