-- What the dataset card says of the documents that the filters dropped, by reason and domain.
--
-- Reads  filtered   (tasks/schema.py)
select reason, domain, count(*) as documents
from filtered
group by all
order by reason, domain;
