-- Which texts are in the selection that were not in the previous run's, and the other way round.
--
-- Reads     ranking, documents                     this run's   (views.sql)
--           previous_ranking, previous_documents   the previous run's
-- Makes     changes   one row a document: entered | left | stayed
--
-- Texts are compared, by their sha256: a document that only moved to another line or file has not changed.
create or replace temp table changes as
with now as (
    select ranking.domain, rank, score, doc_tokens, source, line, sha256
    from ranking
    join documents using (doc_id)
    where selected
),
before as (
    select previous_ranking.domain, rank, score, doc_tokens, source, line, sha256
    from previous_ranking
    join previous_documents using (doc_id)
    where selected
)
select 'entered' as change, * from now anti join before using (sha256)
union all
select 'left' as change, * from before anti join now using (sha256)
union all
select 'stayed' as change, * from now semi join before using (sha256);
