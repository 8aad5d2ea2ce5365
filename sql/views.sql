-- What `ladm sql` shows of a run. The tables it reads (…_shards, …_dropped, run_scores, run_ranking, run_allocation,
-- run_not_ranked, run_quarantine, run_jobs, all_runs, and ingest_shards_addresses, where the source files lie) are made by flows/ask/query.py from exactly the files that the
-- run's record names.

create view documents as
select doc_id, domain, text, source, line, "offset", sha256, bytes, meta from ingest_shards;

create view windows as
select * from tokenize_shards;

create view scores as
select * from run_scores;

create view ranking as
select * from run_ranking where role = 'long';

-- one row a copy of a selected document (`copy` counts from 0), also of those that are replayed (role = 'replay')
create view selected as
select run_ranking.*, copy
from run_ranking
cross join unnest(range(run_ranking.copies)) as all_copies(copy)
where selected
order by domain, copy, rank;

-- one row a domain or quota: what it should have got, what it got, what it is short of
create view allocation as
select * from run_allocation;

-- one row a document that was not scored as a duplicate or for a benchmark passage: why, and its twin; and one row a
-- document that a filter dropped, of which there is only the reason; and one row a document that was scored and is held
-- back from the ranking: why, and how far it lies from what would let it pass
create view dropped as
select
    f.* replace (coalesce(a.uri, f.source) as source, coalesce(t.uri, f.twin_source) as twin_source),
    null::double as distance
from (from run_dropped union all by name from filter_dropped union all by name from short_dropped) as f
left join ingest_shards_addresses as a on a.name = f.source
left join ingest_shards_addresses as t on t.name = f.twin_source
union all by name
select n.doc_id, n.domain, d.source, d.line, n.reason, n.windows, n.distance
from run_not_ranked as n
left join ingest_shards as d using (doc_id);

-- one row a record that could not be used, or a file (line is null); a window that could not be scored has the place
-- and the beginning of its document
create view quarantine as
select
    q.stage,
    coalesce(d.source, a.uri, q.source) as source,
    coalesce(q.line, d.line) as line,
    q.reason,
    coalesce(nullif(q.excerpt, ''), regexp_replace(left(d.text, 200), '[\p{C}\p{Zl}\p{Zp}]', '�', 'g'), '') as excerpt,
    q.records,
    q.doc_id
from run_quarantine as q
left join ingest_shards as d using (doc_id)
left join ingest_shards_addresses as a on a.name = q.source;

-- one row a job of a stage: what it got, where it went, whether the store already had it
create view stages as
select * from run_jobs;

create view runs as
select * from all_runs;
