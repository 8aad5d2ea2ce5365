-- What was quarantined, by stage and reason, most records first.
--
-- Reads  quarantine   (views.sql)
-- Gives  one row a reason, with the first place where it was found and its excerpt
--
-- Reasons that differ only in a number or an id are one.
select
    stage,
    any_value(quarantine.reason) as reason,
    sum(records)::bigint as records,
    count(distinct source) as files,
    first({'source': source, 'line': line, 'excerpt': excerpt} order by source, line) as example
from quarantine
group by stage, regexp_replace(quarantine.reason, '\b[0-9a-f]*[0-9][0-9a-f]*\b', '#', 'g')
order by records desc, stage, 2;
