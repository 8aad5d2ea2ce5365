"""What the user's environment says of proxies and certificates, made such that Prefect's HTTP client can live with it.

The client (httpx) reads these variables when it is made, also to talk to the loopback interface alone, and what it
does not understand is an exception of its own. Our server is on loopback, so no proxy matters to it.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import ssl
import urllib.parse

from ladm.tasks.errors import UserError
from ladm.tasks.redact import one_line

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
SCHEMES = ("http", "https", "socks5", "socks5h")
LOOPBACK = ("127.0.0.1", "localhost")


def settle_network() -> list[str]:
    """Leave out of the environment, for this process and its own, what httpx could not work with.

    Returns:
        A line for each variable that is left out, naming it and the fix.

    Raises:
        UserError: The user's certificates cannot be read.
    """
    _check_certificates()
    told = []
    for name in [name for lower in PROXIES for name in (lower, lower.upper())]:
        value = os.environ.get(name, "").strip()
        if value and (problem := _problem(value)):
            del os.environ[name]
            told.append(f"{name}: {one_line(_with_scheme(value))} is left out: {problem}")
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host.strip() for host in os.environ.get(name, "").split(",")]
        kept = [host for host in hosts if host and _is_understood(host)]
        # a proxy knows nothing of our loopback interface
        os.environ[name] = ",".join(dict.fromkeys([*kept, *LOOPBACK]))
    return told


def _check_certificates() -> None:
    name = "SSL_CERT_FILE"
    if not (path := os.environ.get(name)):
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # an SSLError is one
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise UserError(
            f"{name}: the certificates in {path!r} cannot be read ({reason}); name a file in PEM format, or unset it"
        ) from None


def _problem(proxy: str) -> str | None:
    """Why httpx can use no proxy of this address."""
    try:
        parts = urllib.parse.urlsplit(_with_scheme(proxy))
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"it is not an address ({error}); give one like http://proxy:3128, or unset it"
    if parts.scheme not in SCHEMES or not host:
        return f"it is not a proxy of a known kind ({', '.join(SCHEMES)}); correct or unset it"
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        return "SOCKS needs the package socksio; pip install socksio, or unset it"
    return None


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_understood(host: str) -> bool:
    """Whether httpx can make a pattern of an entry of NO_PROXY: it takes no networks of IPv6, and no odd ports."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return True
    name = host.partition("://")[2] or host
    try:
        urllib.parse.urlsplit(f"all://{name}").port  # noqa: B018
    except ValueError:
        return False
    return name.count(":") < 2 and not set(name) & set("[]") and name.isascii()
