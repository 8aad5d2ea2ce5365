-- Takes documents in the order of selection, lane by lane, until the next would pass the lane's tokens.
--
-- Reads     queue   one row a copy of a document: its lane, the lane's limit (null: none), and its place in the order
--                   (phase, turn); the allocation's candidates, or what cap_sources.sql left of them
--           ranked  (rank.sql), for the ids
-- Makes     ends    the lanes that end before their last document: the turn at which, and the tokens before it
--           taken   the queue, with `selected`
--
-- It stops for good at the first document that does not fit: a worse document never takes the place of a better
-- one for being shorter. Ties are broken by doc_id, so that every machine selects the same.
--
-- Only among the documents of the very turn at which a lane ends do their ids count, so only those are put in order.
create or replace temp table ends as
with turns as (
    select lane, phase, turn, any_value(lane_tokens) as lane_tokens, sum(doc_tokens) as tokens
    from queue
    group by lane, phase, turn
),
running as (
    select *, sum(tokens) over (partition by lane order by phase, turn rows unbounded preceding) as running_tokens
    from turns
)
select
    lane,
    min({'phase': phase, 'turn': turn}) as at_turn,
    min(running_tokens - tokens) as tokens_before,
    any_value(lane_tokens) as lane_tokens
from running
where running_tokens > lane_tokens
group by lane;

create or replace temp table taken_by_id as
select
    place,
    domain,
    doc_tokens,
    tokens_before
    + sum(doc_tokens) over (partition by lane order by doc_id rows unbounded preceding) <= ends.lane_tokens as selected
from queue
join ends using (lane)
join (select place, doc_id from ranked) as ids using (place)
where {'phase': phase, 'turn': turn} = at_turn;

create or replace temp view taken as
select
    place,
    domain,
    doc_tokens,
    ends.lane is null or {'phase': phase, 'turn': turn} < at_turn as selected
from queue
left join ends using (lane)
where ends.lane is null or {'phase': phase, 'turn': turn} <> at_turn
union all
from taken_by_id;
