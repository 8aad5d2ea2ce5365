-- The score of every window by which its document is ranked, where a calibration has a gate: dependency, of which what
-- lies above real windows in the middle counts by its logarithm, less a penalty for what is unlike real text. A window
-- of which the gate's distance could not be measured is left out.
--
-- Reads      scores, measures                    one row a window each; `measures` holds gate_distance
-- Variables  gate_slope, gate_lean, gate_penalty, gate_start   (tasks/scorers/gate.py, ranking_score)
-- Makes      window_scores                       scores, with `window_score`
create or replace temp view window_scores as
select
    scores.*,
    least(coalesce(dependency_score, cds), 0)
    + getvariable('gate_slope') * ln(1 + greatest(coalesce(dependency_score, cds), 0))
    - getvariable('gate_lean') * greatest(gate_distance, 0)
    - getvariable('gate_penalty') * pow(greatest(gate_distance - getvariable('gate_start'), 0), 2) as window_score
from scores
join measures using (window_id)
where gate_distance is not null;
