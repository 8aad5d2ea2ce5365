"""Makes attention.png, the picture of the README, from a run of the bundled sample.

    ladm run && python docs/assets/attention.py ladm-store

It shows three documents of the domain Manuals: the best whole one, the worst spliced one, and the worst list. The
pictures are those of `ladm report --heatmaps`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ladm.flows.ask.query import run_views
from ladm.flows.ask.shown import newest_run
from ladm.flows.report.heatmaps import measure_heatmaps, stored_heatmaps
from ladm.flows.runs.read import read_record
from ladm.tasks.storage.store import Store

OUT = Path(__file__).with_name("attention.png")
SHOWN = {"whole": "asc", "spliced": "desc", "list": "desc"}
"""Kind of document → which end of the ranking."""
QUERY = """
    select window_id, rank, score, domain_documents, meta ->> '$.meta.title' as title
    from ranking join documents using (doc_id, domain) join windows using (doc_id, domain)
    where domain = 'Manuals' and (meta ->> '$.meta.kind') = '{kind}' order by rank {order} limit 1
"""


def main(uri: str) -> None:
    """Measure the three windows, once, and draw them side by side."""
    store = Store(uri)
    record = read_record(store, newest_run(store))
    with run_views(store, record) as connection:
        rows: dict[str, Any] = {}
        for kind, order in SHOWN.items():
            (rows[kind],) = connection.execute(QUERY.format(kind=kind, order=order)).fetchall()
        measure_heatmaps(store, connection, record, [row[0] for row in rows.values()], print)
    maps = {one.window_id: one.pfs for one in stored_heatmaps(store, record["run_id"])}
    figure = Figure(figsize=(10, 3.7), layout="constrained")
    panels = figure.subplots(1, len(rows), sharey=True)
    for axes, (kind, (window, rank, score, of, title)) in zip(panels, rows.items(), strict=True):
        print(kind, rank, score, title)
        image = axes.imshow(np.ma.masked_invalid(maps[window]), cmap="viridis", norm=LogNorm(0.005, 3))
        axes.set_title(f"{kind}: rank {rank} of {of}, score {score:.2f}", fontsize=11)
        axes.set_xlabel("earlier span of 32 tokens")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("later span")
    figure.colorbar(image, ax=panels, label="attention (log)", format="{x:.3g}", pad=0.01).minorticks_off()
    figure.savefig(OUT, dpi=130, metadata={"Software": None})
    print(OUT)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ladm-store")
