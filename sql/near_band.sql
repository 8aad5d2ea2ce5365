-- Pairs of documents whose signatures agree in one whole band; run once a band, which bounds the memory it takes.
--
-- Reads     unique_documents   (near_documents.sql); its pairs are added to `candidates`
-- Variables band               which band, from 0
--           band_rows          numbers in a band
--           neighbours         in one bucket a document is compared with so many before it, and with the first
--
-- Documents that agree in the band fall into one bucket and are compared. In a bucket of very many documents comparing
-- all with all would take for ever, so each is compared with the first and with its neighbours there.
insert into candidates
with bands as (
    select
        place,
        hash(list_slice(
            minhash,
            getvariable('band') * getvariable('band_rows') + 1,
            (getvariable('band') + 1) * getvariable('band_rows')
        )) as bucket
    from unique_documents
),
buckets as materialized (
    select bucket, place, row_number() over (partition by bucket order by place) as number
    from bands
    qualify count(*) over (partition by bucket) > 1
),
asked as (
    select
        bucket,
        place,
        -- number 1 once, whether it is a neighbour or not
        unnest(list_distinct(
            list_prepend(1::bigint, range(greatest(1, number - getvariable('neighbours')::bigint), number))
        )) as number
    from buckets
    where number > 1
)
select asked.place, earlier.place
from asked
join buckets as earlier using (bucket, number);
