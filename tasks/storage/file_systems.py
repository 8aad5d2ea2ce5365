"""Reaching file systems, local and S3: the same options everywhere, and their errors told in one line."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO, cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ladm.tasks.errors import ConfigError
from ladm.tasks.redact import holds_secret, one_line
from ladm.tasks.storage.s3_patience import TRIES, TRIES_BEFORE_WORK, patience_options, set_patience

ODD_NAME = "file://localhost"
"""What the URL of a local file begins with whose name is no UTF-8; the rest is its path, percent-encoded."""

ARCHIVES = ("zip", "tar", "libarchive", "reference", "dir", "blockcache", "cached", "filecache", "simplecache")
"""Protocols that mean something inside another address."""

INSTALLED_BY = {
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
}
"""Protocol → the package that reads it, which is not installed with ladm."""
RAISE = (
    ("httpx", "HTTPError"),
    ("httpx2", "HTTPError"),
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("azure.core.exceptions", "AzureError"),
)
"""What file systems raise of their own: module, class."""
TESTED = {"file", "s3", "s3a", "http", "https", "hf", "gs", "gcs", "abfs", "az", "memory"}
"""Protocols that ladm is made for."""
KEEP_NOTHING = {"http", "https", "hf", "memory", "git", "github", *ARCHIVES}
"""Protocols of what is only read, or is gone with the process."""
NOT_THERE, NOT_ALLOWED = (404, 410), (401, 403)
"""Answers of web servers."""
HUB_SECONDS = 5.0
"""How long the Hugging Face Hub may take to answer before a run; its own client would wait for ever."""

LISTINGS = {"use_listings_cache": False}
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_aws: dict[str, str] | None = None
"""The variables of the environment by which S3 was reached last."""


def file_system(uri: str, impatient: bool = False) -> tuple[Any, str]:
    """The file system of a URI and the path on it.

    Listings are never taken from fsspec's cache: the same process must see what others wrote since.

    Args:
        uri: A path or URL.
        impatient: Give up on an S3 endpoint that does not answer within seconds, as before a run, not within minutes.

    Raises:
        ValueError, ImportError: There is no such protocol, it cannot be reached by an address alone, or the address of
            S3 holds a password, which every error of a request would repeat.
        ConnectionError: The Hugging Face Hub does not answer.
    """
    if uri.startswith("/") and ":" not in uri:  # a run may ask for tens of thousands of them
        return _on_this_machine(), cast(str, LocalFileSystem._strip_protocol(uri))
    options: dict[str, Any] = dict(LISTINGS)
    if is_s3(uri):
        if wrong := next((name for name in ENDPOINTS if holds_secret(os.environ.get(name, ""))), None):
            raise ValueError(f"{wrong} holds a password; leave it out, S3 asks for AWS_SECRET_ACCESS_KEY alone")
        impatience = {"config_kwargs": {"connect_timeout": 3, "retries": {"max_attempts": 1}}}
        options |= impatience if impatient else patience_options()
        _forget_what_was_reached_otherwise()
    if uri.startswith(("http://", "https://")):
        options["client_kwargs"] = _web_options(impatient)
    if uri.startswith("hf://") and impatient:
        _ask_the_hub()
    uri = local_path(uri)
    try:
        fs, path = _not_chained(uri, options) if "::" in uri else fsspec.core.url_to_fs(uri, **options)
    except ImportError as error:
        package = INSTALLED_BY.get(uri.partition("://")[0])
        if package is None:
            raise
        raise ValueError(f"the package {package} is not installed; pip install {package}") from error
    except (OSError, TypeError, AttributeError, NotImplementedError) as error:
        # Raised by protocols that ask for more than an address, or look into an archive that is not there.
        raise ValueError(f"{type(error).__name__}: {reason_of(error)}") from error
    if is_s3(uri):
        set_patience(fs, TRIES_BEFORE_WORK if impatient else TRIES)
    return fs, cast(str, path)


def _forget_what_was_reached_otherwise() -> None:
    """Have S3 reached by the environment as it is now.

    s3fs keeps a connection by its options alone. Somebody who mends a key or an address in a notebook would go on with
    the one of before.
    """
    global _aws  # noqa: PLW0603
    now = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name.endswith("_PROXY")}
    if _aws not in (None, now):
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    _aws = now


@cache
def _on_this_machine() -> LocalFileSystem:
    return LocalFileSystem(**LISTINGS)


def _web_options(impatient: bool) -> dict[str, Any]:
    """Options of a client of web servers: the proxies of the environment, and how long a server may be silent."""
    import aiohttp  # noqa: PLC0415

    connect, read = (5, 20) if impatient else (30, 120)
    # The client's own limit of five minutes is on the whole of a file.
    return {"trust_env": True, "timeout": aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)}


def _ask_the_hub() -> None:
    """Find out that the Hugging Face Hub answers at all, within seconds.

    Raises:
        ConnectionError: It does not; the message says which variables matter.
    """
    from huggingface_hub import constants, get_session  # noqa: PLC0415

    endpoint = one_line(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set, so that nothing is asked of the Hugging Face Hub; unset it")
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except io_errors(ValueError) as error:
        reason = reason_of(error)
        raise ConnectionError(
            f"{endpoint} does not answer: {reason}; check the network and its proxy, or set HF_ENDPOINT to a mirror"
        ) from None


def local_uri(path: str) -> str:
    """How a file on this machine is known: its path, or where its name is no UTF-8, its URL (`file://localhost/…%E9`)."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return ODD_NAME + quote_from_bytes(os.fsencode(path))
    return path


def local_path(uri: str) -> str:
    """The path of a file that is known by its URL because its name is no UTF-8; any other address as it is."""
    return os.fsdecode(unquote_to_bytes(uri.removeprefix(ODD_NAME))) if uri.startswith(ODD_NAME) else uri


def _not_chained(uri: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The file system of an address that holds `::`, by which fsspec would chain several: here it is part of a name."""
    protocol, separator, rest = uri.partition("://")
    if not separator:
        protocol = "file"
    elif "::" in protocol or "://" in rest or protocol in ARCHIVES:
        raise ValueError("addresses chained by :: are not read; unpack an archive, and give the address of its files")
    kind = fsspec.get_filesystem_class(protocol)
    path = kind._strip_protocol(uri)  # as fsspec.core.url_to_fs does
    return fsspec.filesystem(protocol, **kind._get_kwargs_from_urls(uri), **options), path


def is_s3(uri: str) -> bool:
    """Whether the URI is one of S3's."""
    return uri.startswith(("s3://", "s3a://"))


def is_web(fs: Any) -> bool:
    """Whether a file system is that of http and https."""
    return "http" in _protocols(fs)


def is_ours(fs: Any) -> bool:
    """Whether a file system is one that ladm is made for and tested with; what others raise is anybody's guess."""
    return bool(TESTED.intersection(_protocols(fs)))


def _protocols(fs: Any) -> tuple[str, ...]:
    return fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)


def keeps_files(uri: str) -> bool:
    """Whether files can be written to an address, and are there when the process has ended, as far as it tells."""
    protocol, separator, _ = uri.partition("://")
    return not uri.startswith("data:") and not (separator and protocol in KEEP_NOTHING)


def reached_by_others(uri: str) -> bool:
    """Whether another process reaches a file as this one does: not what lies in memory, nor by what was set up here."""
    protocol, separator, _ = uri.partition("://")
    return not separator or (protocol in TESTED - {"memory"} and not fsspec.config.conf.get(protocol))


def no_web_answer(error: FileNotFoundError) -> str | None:
    """Why a web server did not give a file, where it is not that there is none: fsspec takes all that for the same."""
    why = error.__cause__
    if why is None or isinstance(why, FileNotFoundError):
        return None
    status = getattr(why, "status", None)
    if status in NOT_THERE:
        return None
    if status is not None:
        may = "; the address needs credentials that ladm does not give" if status in NOT_ALLOWED else ""
        return one_line(f"the server answers HTTP {status} {getattr(why, 'message', '')}".strip() + may)
    return f"the server does not answer as one ({reason_of(why)}); check the address, the network and its proxy"


def opened(uri: str) -> BinaryIO:
    """Open a file for reading, so that any place in it can be gone to.

    What a web server sends without saying how long it is, or only as a whole, is kept in a temporary file meanwhile.
    """
    fs, path = file_system(uri)
    if isinstance(fs, LocalFileSystem):
        if stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116  # in a file's place; opening it might never end
            raise OSError(errno.EINVAL, "a pipe, and no file", path)
        return open(path, "rb")  # noqa: PTH123  # closed by whoever reads it
    if not is_web(fs):
        return cast(BinaryIO, fs.open(path, "rb"))
    info = fs.info(path)
    if info.get("size") and info.get("partial", True):
        return cast(BinaryIO, fs.open(path, "rb"))
    whole = tempfile.TemporaryFile(prefix="ladm-")  # noqa: SIM115  # closed by whoever reads it
    with fs.open(path, "rb", block_size=0) as sent:
        while block := sent.read(2**20):
            with naming(tempfile.gettempdir()):
                whole.write(block)
    with naming(tempfile.gettempdir()):
        whole.seek(0)
    return cast(BinaryIO, whole)


@contextlib.contextmanager
def naming(place: str) -> Iterator[None]:
    """Have an error that the system raises meanwhile, such as a full disk's, say which file it is about."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = place
        raise


def io_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What reaching for a file can raise: `OSError`, and the file systems' own errors; for `except`."""
    loaded = ((sys.modules.get(module), name) for module, name in RAISE)  # not loaded: then it raised nothing either
    return (*more, OSError, *(getattr(module, name) for module, name in loaded if hasattr(module, name)))


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line, without the credentials of any URL in it."""
    text = getattr(error, "strerror", None) or str(error)
    if text == "Forbidden":  # all that an answer without a body can say
        return "forbidden: check the credentials and what they allow"
    return one_line(str(text)) or type(error).__name__


def reason_and_place(error: BaseException) -> str:
    """`reason_of`, with the file that the error is about, where it says so."""
    reason, place = reason_of(error), getattr(error, "filename", None)
    return f"{reason}: {one_line(repr(place))}" if place and str(place) not in reason else reason


@contextlib.contextmanager
def reached(field: str, uri: str) -> Iterator[None]:
    """Turn an unreachable store (credentials, endpoint, permissions) into a `ConfigError` of one line."""
    try:
        fs, path = file_system(uri, impatient=True)
        if is_s3(uri):
            fs.exists(f"{path}/anything")  # True or False, unless the server cannot be asked
    except io_errors(ValueError, ImportError) as error:
        raise ConfigError(f"{field}: {uri!r} cannot be reached ({reason_of(error)})") from None
    try:
        yield
    except io_errors() as error:
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            raise ConfigError(
                f"{field}: {uri!r} cannot be written ({reason_of(error)}); mount it to be written"
            ) from None
        raise ConfigError(f"{field}: {uri!r} cannot be reached ({reason_of(error)})") from None
