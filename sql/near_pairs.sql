-- Pairs of documents that are similar by their MinHash signatures, among those that are not dropped yet.
--
-- Reads     signatures, placed, repeats   (repeats.sql)
-- Variables bands, band_rows   a signature is cut into so many bands of so many numbers
--           permutations       numbers in a signature
--           threshold          Jaccard similarity, as estimated from whole signatures, from which on two are similar
--           neighbours         in one bucket a document is compared with so many before it, and with the first
-- Makes     near_pairs         place, twin_place < place, similarity
--
-- Documents that agree in a whole band fall into one bucket and are compared. In a bucket of very many documents
-- comparing all with all would take for ever, so each is compared with the first and with its neighbours there.
create or replace temp table unique_documents as
select placed.place, signatures.minhash
from placed
join signatures using (doc_id)
where signatures.minhash is not null and placed.place not in (select place from repeats);

create or replace temp table candidates as
with bands as (
    select
        place,
        band,
        hash(list_slice(
            minhash, band * getvariable('band_rows') + 1, (band + 1) * getvariable('band_rows')
        )) as bucket
    from unique_documents
    cross join range(getvariable('bands')::bigint) as cut(band)
),
buckets as (
    select band, bucket, place, row_number() over (partition by band, bucket order by place) as number
    from bands
    qualify count(*) over (partition by band, bucket) > 1
)
select distinct later.place, earlier.place as twin_place
from buckets as later
join buckets as earlier
    on later.band = earlier.band
    and later.bucket = earlier.bucket
    and earlier.number < later.number
    and (earlier.number = 1 or later.number - earlier.number <= getvariable('neighbours'));

create or replace temp table near_pairs as
select *
from (
    select
        candidates.place,
        candidates.twin_place,
        len(list_filter(
            list_zip(later.minhash, earlier.minhash), lambda pair: pair[1] = pair[2]
        )) / getvariable('permutations')::double as similarity
    from candidates
    join unique_documents as later on later.place = candidates.place
    join unique_documents as earlier on earlier.place = candidates.twin_place
)
where similarity >= getvariable('threshold')::double;
