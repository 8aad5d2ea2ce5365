-- The documents among which near duplicates are looked for: those with a signature that are not dropped yet.
--
-- Reads     signatures, placed, repeats   (repeats.sql)
-- Makes     unique_documents              place, minhash
--           candidates                    place, twin_place < place: pairs to be compared; near_band.sql adds them
create or replace temp table unique_documents as
select placed.place, signatures.minhash
from placed
join signatures using (doc_id)
where signatures.minhash is not null and placed.place not in (select place from repeats);

create or replace temp table candidates (place bigint, twin_place bigint);
