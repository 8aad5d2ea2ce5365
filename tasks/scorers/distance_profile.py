"""Attention by distance: the share of its attention that a window's text puts on the text a given distance before it.

LADM sums attention over far spans, and that sum does not see order: take a document apart and put its pieces together
again in another order, and more of its attention goes far, not less. How attention falls off with distance does see
it. In a text in its own order, what a passage needs lies mostly a little before it; in a shuffled one, anywhere.

The window is cut into *cells*, 128 of them. For sampled query cells this module's plan measures the mass on the cells
at certain distances before them, under the plain causal softmax, and on the window's first cell, which holds the
attention sink (the first token, on which heads rest that find nothing to attend to).

Dimensions in names: B windows, N layers, H heads, F features, P pairs of spans.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ladm.tasks.errors import AccountError
from ladm.tasks.scorers.spans import QuerySpan, SpanPlan

CELLS = 128
DISTANCES = (0, 1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80, 104)
"""Cells from a query cell back to a key cell; 0 is the cell itself."""
FEATURES = (*(f"distance-{distance}" for distance in DISTANCES), "sink-mean", "sink-std")
_FIRST_QUERY_CELL = 8
_EVERY = 2  # every second cell is a query cell
_NONE = 1e-6  # of a row's attention; below this, a share counts as nothing


def profile_plan(length: int) -> SpanPlan:
    """Which cells of a window of `length` tokens to measure: each query cell's key cells by distance, then cell 0.

    The cells are counted from the window's first token; what is left at its end is not measured. Cell 0 is a key cell
    for itself alone, since the sink would drown what is measured at its distance.
    """
    cell = length // CELLS
    if cell < 1:
        raise AccountError(f"a window of {length} tokens has no {CELLS} cells")
    queries = []
    for number in range(_FIRST_QUERY_CELL, CELLS, _EVERY):
        keys = [number - distance for distance in DISTANCES if distance < number]
        queries.append(QuerySpan(number * cell, tuple(key * cell for key in [*keys, 0])))
    return SpanPlan(length, cell, True, tuple(queries))


def profile_features(plan: SpanPlan, pfs_NBHP: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The profile of each layer and head: f_BNHF, natural logarithms, in the order of `FEATURES`.

    The first features are the mean share of a row's attention on a cell at each distance; `sink-mean` and `sink-std`
    are the mean and the standard deviation over query cells of the share on cell 0.
    """
    pairs = [(query.start // plan.span, key // plan.span) for query in plan.queries for key in query.key_starts]
    on_sink = np.array([key == 0 for _, key in pairs])
    distances = np.array([query - key for query, key in pairs])
    share_NBHP = pfs_NBHP.astype(np.float64) / plan.span
    columns = [share_NBHP[..., ~on_sink & (distances == distance)].mean(axis=-1) for distance in DISTANCES]
    sink_NBHQ = share_NBHP[..., on_sink]
    columns += [sink_NBHQ.mean(axis=-1), sink_NBHQ.std(axis=-1)]
    f_BNHF: npt.NDArray[np.float32] = np.log(np.stack(columns, axis=-1) + _NONE).swapaxes(0, 1).astype(np.float32)
    return f_BNHF
