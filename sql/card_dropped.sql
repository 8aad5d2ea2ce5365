-- What the dataset card says of the documents that were left out before scoring, by reason and domain.
--
-- Reads  dropped   (tasks/schema.py)
select
    reason,
    domain,
    count(*) as documents,
    sum(windows)::bigint as windows
from dropped
group by all
order by reason, domain;
