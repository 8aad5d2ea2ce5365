"""How long an S3 server that is out of reach is waited for, by each request: longer than a minute.

s3fs tries a request again by itself, but gives up at once where no connection can be made, as while a server restarts
or a route is gone; botocore then tries for some seconds. Here such an error, and an answer that says the server itself
is at fault, is one to be tried again, with pauses that grow to a quarter of a minute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

TRIES = 14
"""Of one request. s3fs waits 0.1 s · 1.7ⁿ after each, 15 s at most: 74 s until the last."""
TRIES_BEFORE_WORK = 1
"""Of a request that finds out, before any work, whether there is a server."""
BOTOCORE_TRIES_AGAIN = 1
"""botocore's own, within each of these."""


def patience_options() -> dict[str, Any]:
    """The options of a file system whose requests are tried `TRIES` times; AWS_MAX_ATTEMPTS is left to have its way."""
    if os.environ.get("AWS_MAX_ATTEMPTS"):
        return {}
    return {"config_kwargs": {"retries": {"max_attempts": BOTOCORE_TRIES_AGAIN}}}  # botocore changes what it is given


def set_patience(fs: Any, tries: int = TRIES) -> None:
    """Have a file system of s3fs try each request so often, where another try may help."""
    _tell_s3fs()
    fs.retries = tries


def may_pass(error: BaseException) -> bool:
    """Whether another try of a request may help: nobody answered, or the server says that it is at fault itself."""
    botocore = sys.modules.get("botocore.exceptions")
    if botocore is None:  # then it raised nothing either
        return False
    if isinstance(error, botocore.ClientError):
        answer: dict[str, Any] = getattr(error, "response", None) or {}
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or answer.get("Error", {}).get("Code") in ("RequestTimeout", "SlowDown", "InternalError")
    return isinstance(error, botocore.ConnectionError)


@cache
def _tell_s3fs() -> None:
    """Have s3fs ask `may_pass`, beside whatever it was told to ask before."""
    import s3fs.core  # noqa: PLC0415

    before: Callable[[BaseException], bool] = s3fs.core.CUSTOM_ERROR_HANDLER
    s3fs.core.set_custom_error_handler(lambda error: may_pass(error) or before(error))
