-- Pairs of documents that are similar by their MinHash signatures.
--
-- Reads     unique_documents, candidates   (near_documents.sql, near_band.sql)
-- Variables permutations                   numbers in a signature
--           threshold                      Jaccard similarity, as estimated from whole signatures, from which on two
--                                          are similar
-- Makes     near_pairs                     place, twin_place < place, similarity
create or replace temp table near_pairs as
select *
from (
    select
        pairs.place,
        pairs.twin_place,
        len(list_filter(
            list_zip(later.minhash, earlier.minhash), lambda pair: pair[1] = pair[2]
        )) / getvariable('permutations')::double as similarity
    from (select distinct place, twin_place from candidates) as pairs
    join unique_documents as later on later.place = pairs.place
    join unique_documents as earlier on earlier.place = pairs.twin_place
)
where similarity >= getvariable('threshold')::double;
