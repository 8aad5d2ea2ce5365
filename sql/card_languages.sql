-- The languages that the selected documents' own metadata names by a code of two or three letters, most documents first.
--
-- Reads  ranking, documents
with named as (
    select
        lower(
            coalesce(
                json_extract_string(documents.meta, '$.meta.language'),
                json_extract_string(documents.meta, '$.language'),
                json_extract_string(documents.meta, '$.meta.lang'),
                json_extract_string(documents.meta, '$.lang')
            )
        ) as language
    from ranking
    join documents using (doc_id)
    where ranking.selected
)
select language, count(*) as documents
from named
where regexp_full_match(language, '[a-z]{2,3}')
group by language
order by documents desc, language;
