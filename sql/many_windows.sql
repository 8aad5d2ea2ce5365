-- Documents with their scores, of which some have more than one window.
--
-- Reads     window_scores      (window_scores.sql)
-- Variable  aggregate          max | mean | first: a document's score from its windows
-- Makes     documents_scored   one row a document; its score is null if that of any of its windows is
create or replace temp table documents_scored as
select
    doc_id,
    any_value(domain) as domain,
    case if(count(*) = count(window_score), getvariable('aggregate'), null)
        when 'max' then max(window_score)
        when 'mean' then avg(window_score order by window_index)
        when 'first' then arg_min(window_score, window_index)
    end as score,
    count(*) as windows,
    any_value(doc_tokens) as doc_tokens,
    bool_and(doc_tokens_exact) as doc_tokens_exact
from window_scores
group by doc_id;
