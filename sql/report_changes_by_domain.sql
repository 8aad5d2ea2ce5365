-- Reads  changes   (report_changes.sql)
-- Gives  one row a domain: documents and tokens that entered the selection, left it, and stayed
select
    domain,
    count(*) filter (change = 'entered') as entered,
    count(*) filter (change = 'left') as gone,
    count(*) filter (change = 'stayed') as stayed,
    coalesce(sum(doc_tokens) filter (change = 'entered'), 0)::bigint as tokens_entered,
    coalesce(sum(doc_tokens) filter (change = 'left'), 0)::bigint as tokens_gone
from changes
group by domain
order by entered + gone desc, domain;
