-- How the scores of each domain's documents are distributed, and how many of them are selected.
--
-- Reads     ranking   (views.sql)
-- Variable  bins      bars a domain, of equal width from its lowest score to its highest
-- Gives     one row a bar that is not empty; `bar` counts from 0. Documents without a score are in none.
with bounds as (
    select domain, min(score) as lowest, max(score) as highest
    from ranking
    group by domain
)
select
    domain,
    lowest,
    highest,
    -- the highest score belongs to the last bar; where all scores are equal there is but one bar
    coalesce(
        least(
            floor((score - lowest) / nullif(highest - lowest, 0) * getvariable('bins')::bigint),
            getvariable('bins')::bigint - 1
        ),
        0
    )::bigint as bar,
    count(*) filter (selected) as selected,
    count(*) filter (not selected) as others
from ranking
join bounds using (domain)
where score is not null
group by domain, lowest, highest, bar
order by domain, bar;
