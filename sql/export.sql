-- Where each selected document goes in an export: its split, its place in it, and the part file that holds it. A
-- document that was selected more than once goes there as often: all of a domain once, before any comes again.
--
-- Reads     ranking      (select.sql)
--           documents    the document shards, with `file_index` and `file_row_number` of each row
-- Variables shuffle      seed of a random order of all copies; null: best first within each domain
--           validation   share of the documents that are held out, chosen by the hash of their text
--           part_bytes   a part file begins a new one when it holds this many bytes of text
-- Makes     export_plan  one row a copy of a selected document; `copy` counts from 0
--
-- A document's split depends on its text alone: it stays where it is when the corpus grows, a larger share holds
-- what a smaller one held, and a text that is there more than once is never on both sides.
create or replace temp table export_plan as
with placed as (
    select
        ranking.*,
        documents.bytes,
        documents.file_index,
        documents.file_row_number,
        case
            when md5_number_lower('validation:' || documents.sha256) / 2.0 ** 64 < getvariable('validation')
            then 'validation'
            else 'train'
        end as split,
        copy,
        case
            when getvariable('shuffle') is not null
            then md5(getvariable('shuffle') || ':' || doc_id || case when copy > 0 then ':' || copy else '' end)
        end as shuffled
    from ranking
    join documents using (doc_id)
    cross join unnest(range(ranking.copies)) as copies(copy)
    where ranking.selected
),
filled as (
    select
        *,
        row_number() over in_order as position,
        (sum(bytes) over in_order - bytes) // getvariable('part_bytes') as fill
    from placed
    window in_order as (partition by split order by shuffled, placed.domain, copy, placed.rank rows unbounded preceding)
)
select * exclude (shuffled, fill, bytes), (dense_rank() over (order by split, fill) - 1)::integer as part
from filled;
