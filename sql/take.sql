-- Takes documents in the order of selection, lane by lane, until the next would pass the lane's tokens.
--
-- Reads     lanes   (the allocation's file) one row a lane: the tokens that it may hold, null for no limit
--           queue   one row a copy of a document: its lane, its place in the order (phase, turn), and the target that
--                   it counts for; the allocation's candidates, or what cap_sources.sql left of them
--           ranked  (rank.sql), for the ids
-- Makes     ends    the lanes that end before their last document: the phase and turn at which, and the tokens before
--           taken   the queue, with `selected`
--
-- It stops for good at the first document that does not fit: a worse document never takes the place of a better
-- one for being shorter. Ties are broken by doc_id, so that every machine selects the same.
--
-- Only among the documents of the very turn at which a lane ends do their ids count, so only those are put in order.
create or replace temp table ends as
with turns as (
    select lane, phase, turn, sum(doc_tokens) as tokens
    from queue
    group by lane, phase, turn
),
running_turns as (
    select *, sum(tokens) over (partition by lane order by phase, turn rows unbounded preceding) as tokens_so_far
    from turns
),
too_many as (
    select lane, phase, turn, tokens_so_far - tokens as tokens_before, lane_tokens
    from running_turns
    join lanes using (lane)
    where tokens_so_far > lane_tokens
)
select lane, phase as end_phase, turn as end_turn, tokens_before, lane_tokens
from too_many
qualify row_number() over (partition by lane order by phase, turn) = 1;

create or replace temp table taken_by_id as
select
    place,
    target,
    copy,
    doc_tokens,
    tokens_before
    + sum(doc_tokens) over (partition by lane order by doc_id rows unbounded preceding) <= lane_tokens as selected
from queue
join ends using (lane)
join (select place, doc_id from ranked) as ids using (place)
where phase = end_phase and turn = end_turn;

create or replace temp view taken as
select
    place,
    target,
    copy,
    doc_tokens,
    end_phase is null or phase < end_phase or (phase = end_phase and turn < end_turn) as selected
from queue
left join ends using (lane)
where end_phase is null or phase <> end_phase or turn <> end_turn
union all
from taken_by_id;
