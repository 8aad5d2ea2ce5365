"""Publishing to a dataset of the Hugging Face Hub: one commit, in which everything appears or nothing.

Files are uploaded first, each known to the Hub by its content, so that what is there already, from this run or from one
that was interrupted, is not uploaded again. The commit then names them, and leaves out what an earlier one had and this
one has not. The Hub is the one of `HF_ENDPOINT`, and the token the usual one (`HF_TOKEN`, or `hf auth login`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladm.tasks.errors import ConfigError
from ladm.tasks.manifest import Shard
from ladm.tasks.models.hub import no_bars
from ladm.tasks.storage.file_systems import reason_of
from ladm.tasks.storage.store import Store

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    from ladm.tasks.publishing.target import PublishConfig

NOT_TO_MEND = range(400, 500)
"""Answers of the Hub that trying again does not change."""
MAY_PASS = (408, 409, 412, 429)
"""But for these: too late, somebody else's commit, too many at once."""


def check_hub(config: PublishConfig) -> None:
    """Refuse a Hub that cannot be published to: no token, one that it does not know, or no answer.

    Raises:
        ConfigError: One line that names the fix.
    """
    try:
        with _told():
            _api().whoami()
    except OSError as error:
        raise ConfigError(f"publish: the Hub does not answer ({reason_of(error)}); try again later") from None


def publish_to_hub(config: PublishConfig, store: Store, files: Mapping[str, Shard], card: bytes) -> str:
    """Make a dataset hold some files and nothing else of ours, by one commit.

    Args:
        config: Says which.
        store: Where the files are.
        files: Path in the dataset → file. Folders that one of them lies in are ours.
        card: The dataset's README.md.

    Returns:
        The commit's address; of the one that is there, where nothing changed.

    Raises:
        ConfigError: The Hub refuses.
        OSError: Something that may pass.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # noqa: PLC0415

    dataset = config.dataset
    assert dataset is not None
    of: dict[str, Any] = {"repo_id": dataset, "repo_type": "dataset"}
    with _told(), tempfile.TemporaryDirectory(prefix="ladm-publish-") as folder:
        api = _api()
        api.create_repo(**of, private=config.private, exist_ok=True)
        if config.revision != "main":
            api.create_branch(**of, branch=config.revision, exist_ok=True)
        parent = api.repo_info(**of, revision=config.revision).sha
        there = api.list_repo_files(**of, revision=config.revision)
        operations: list[Any] = []
        for path, file in sorted(files.items()):
            with _on_disk(store, file, Path(folder)) as place:
                operation = CommitOperationAdd(path_in_repo=path, path_or_fileobj=place)
                freed = not store.local  # its place on this disk is wanted for the next
                api.preupload_lfs_files(**of, additions=[operation], revision=config.revision, free_memory=freed)
                if not store.local and not operation._is_uploaded:  # a small file: it goes with the commit itself
                    operation = CommitOperationAdd(path_in_repo=path, path_or_fileobj=place.read_bytes())
            operations.append(operation)
        operations.append(CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card))
        gone = _no_more(there, [*files, "README.md"])
        operations += [CommitOperationDelete(path_in_repo=path) for path in gone]
        made = api.create_commit(
            **of,
            operations=operations,
            commit_message="Selection of ladm",
            revision=config.revision,
            parent_commit=parent,
        )
        return str(made.commit_url)


def _no_more(there: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """What lies in one of our folders and is wanted no more."""
    ours = {path.split("/", 1)[0] for path in wanted if "/" in path}
    return sorted(path for path in there if path.split("/", 1)[0] in ours and path not in set(wanted))


@contextlib.contextmanager
def _on_disk(store: Store, file: Shard, folder: Path) -> Iterator[Path]:
    """The file on this machine's disk, for as long as it takes to upload it."""
    if store.local:
        yield Path(store.full(file.path))
        return
    place = folder / file.path.rsplit("/", 1)[-1]
    with store.fs.open(store.full(file.path), "rb") as source, place.open("wb") as copy:
        shutil.copyfileobj(source, copy, 2**22)
    try:
        yield place
    finally:
        place.unlink()


def _api() -> HfApi:
    from huggingface_hub import HfApi, get_token  # noqa: PLC0415

    token = get_token()
    if not token:
        raise ConfigError(
            "publish: no token for the Hub is set; set HF_TOKEN to one that may write (or: hf auth login)"
        )
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token, library_name="ladm")


def _refuse_for_good(error: HfHubHTTPError) -> None:
    """Raise what trying again does not mend."""
    status = error.response.status_code if error.response is not None else 0
    if status in NOT_TO_MEND and status not in MAY_PASS:
        raise ConfigError(
            f"publish: the Hub refuses ({status}: {reason_of(error)}); give a token that may write to this dataset"
        ) from None


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell what the Hub refuses from what may pass; no bars meanwhile."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled  # noqa: PLC0415

    try:
        with no_bars():
            yield
    except ConfigError:
        raise
    except (OfflineModeIsEnabled, HFValidationError) as error:
        raise ConfigError(f"publish: {reason_of(error)}") from None
    except Exception as error:
        # Of what went wrong in a thread that uploads, the library tells in an error of its own.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            _refuse_for_good(cause)
            raise cause from None
        if type(cause).__module__.startswith("httpx"):  # its connection errors are no OSError
            raise ConnectionError(reason_of(cause)) from error
        raise
