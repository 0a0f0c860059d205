"""Where an endpoint is: addresses as people give them, and keys as the environment has them."""

import os
import re
from urllib.parse import urlsplit

from longreach.core.errors import InputError

_PATHS = ("/chat/completions", "/completions", "/models")  # of the protocol, below the address of an endpoint
_HOST = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?|[\da-f.]*:[\da-f:.]*", re.ASCII)  # a name, or numbers of IPv4 or IPv6
_VERSION = re.compile(r"/v\d+\w*(/|$)")


def base_address(url: str) -> str:
    """An endpoint's address, up to and with its version, however much of it or more than it was given.

    >>> base_address("http://localhost:8000"), base_address("http://localhost:8000/v1/chat/completions")
    ('http://localhost:8000/v1', 'http://localhost:8000/v1')
    >>> base_address("https://example.org/api/"), base_address("https://example.org/v1beta/openai")
    ('https://example.org/api/v1', 'https://example.org/v1beta/openai')

    Raises: InputError for what is no address, or holds more than one: a user, a query.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or "") or port == 0 or " " in parts.path:
        raise InputError(f"{_shown(url)!r} is not the address of an endpoint; give one such as http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(f"{_shown(url)!r}: an address has no user and no query; a key is taken from LONGREACH_API_KEY")
    path = parts.path.rstrip("/")
    ends = [end for end in _PATHS if path.endswith(end)]
    if ends:
        path = path.removesuffix(ends[0])
    elif not _VERSION.search(path):
        path += "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def api_key(given: str | None) -> str:
    """The key to use: as given, or the environment's; "" for none. Raises: InputError, which does not show it."""
    key = given if given is not None else os.environ.get("LONGREACH_API_KEY") or os.environ.get("OPENAI_API_KEY") or ""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError("the API key has characters that no key has; set LONGREACH_API_KEY anew")
    return key


def _shown(url: str) -> str:
    """Without what may be a secret: a user with a password, a query."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0].partition("#")[0])
