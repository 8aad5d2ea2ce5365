"""Publishing: the exports of a selection, with its card, are put where others find them (`tasks/publishing/`).

The job's key holds the target, the exports and the card, so that the same selection is published once. What it leaves
in the store is a receipt: where it was put, and which files.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from ladm.tasks.exporters.card_text import RUN_ID
from ladm.tasks.job import Job, Outcome, Stage
from ladm.tasks.manifest import Counts, Shard, record_path
from ladm.tasks.publishing.folder import check_folder, publish_to_folder
from ladm.tasks.publishing.hub import check_hub, publish_to_hub
from ladm.tasks.publishing.target import PublishConfig
from ladm.tasks.sealing import manifest_of, unsealed
from ladm.tasks.storage.store import Store


def check_publish(config: PublishConfig) -> None:
    """Refuse a target that cannot be published to.

    Raises:
        ConfigError: One line that names the field and the fix.
    """
    if config.dataset:
        check_hub(config)
    else:
        check_folder(config.to)


def publish(job: Job, store: Store, key: str) -> Outcome:
    """Publish all exports and the card. Inputs: the exports' files and the card's. Counts are of files."""
    config = PublishConfig.model_validate(job.config)
    files = _named(store, job.all("exports"))
    card = store.read_bytes(job.one("card").path).replace(RUN_ID.encode(), f"published as {key[:16]}".encode())
    if config.dataset:
        where = publish_to_hub(config, store, files, card)
    else:
        where = publish_to_folder(config.to, store, files, card, key)
    listed = [{"name": name, "bytes": file.bytes, "sha256": file.sha256} for name, file in sorted(files.items())]
    content = orjson.dumps({"to": config.to, "where": where, "files": listed}, option=orjson.OPT_INDENT_2)
    receipt = store.write_file("publish", key, "json", content)
    number = len(files) + 1
    return Outcome(
        counts=Counts(received=number, kept=number),
        files=[receipt],
        measures={"bytes": sum(file.bytes for file in files.values()), "files": number},
    )


def _named(store: Store, exports: Sequence[Shard]) -> dict[str, Shard]:
    """The exports' files by their names: `parquet/train-00000-of-00001.parquet`."""
    formats: dict[str, str] = {}
    found = {}
    for file in exports:
        if file.key not in formats:  # the record of the job that made it says which format that is
            formats[file.key] = manifest_of(unsealed(store.read_bytes(record_path(file.key)))).label
        found[f"{formats[file.key]}/{file.path.split(f'/{file.key}/', 1)[1]}"] = file
    return found


STAGE = Stage(name="publish", version="1", compute=publish, roles=("exports", "card"))
