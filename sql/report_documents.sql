-- The best and the worst documents of each domain, with where they came from and how they begin.
--
-- Reads     ranking, documents, scores   (views.sql)
-- Variables each_end        documents a domain from either end of its ranking; one that belongs to both is a best one
--           characters      of the text
--           shown_domains   the domains to show
-- Gives     one row a document, with its window of the highest score
with ends as (
    select *, rank <= getvariable('each_end')::bigint as best
    from ranking
    where
        (best or rank > domain_documents - getvariable('each_end')::bigint)
        and list_contains(getvariable('shown_domains')::varchar[], domain)
),
best_windows as (
    select doc_id, arg_max(window_id, cds) as window_id
    from scores
    semi join ends using (doc_id)
    group by doc_id
)
select
    ends.doc_id,
    ends.domain,
    ends.best,
    ends.rank,
    ends.score,
    ends.selected,
    ends.doc_tokens,
    coalesce(
        json_extract_string(documents.meta, '$.title'), json_extract_string(documents.meta, '$.meta.title')
    ) as title,
    documents.source,
    documents.line,
    left(documents.text, getvariable('characters')::bigint) as excerpt,
    best_windows.window_id
from ends
join documents using (doc_id)
left join best_windows using (doc_id)
order by ends.domain, ends.rank;
