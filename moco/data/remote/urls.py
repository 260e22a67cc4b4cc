"""URLs as DATA: which ones are accepted, and how they are written without credentials. Nothing here imports fsspec."""

import hashlib
import importlib.util
import posixpath
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from moco.data.sources.images import DataError
from moco.text import escape, extra

PACKAGES = {  # of a scheme: the module that fsspec needs for it
    "http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs",
    "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "oss": "ossfs", "hf": "huggingface_hub", "memory": "fsspec",
}  # fmt: skip
IN_EXTRA = ("fsspec", "aiohttp", "s3fs")  # packages of the extra `remote`
WEB = ("http", "https")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LOGIN = re.compile(r"(?<=://)[^/?#@\s]*:[^/?#\s]*@")  # user:password@
_NAME = re.compile(r"(?<=^http://)[^/?#\s]*@|(?<=^https://)[^/?#\s]*@")
_QUERY = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s?#'\"<>]*)[?#][^\s'\"<>]*")


def is_url(data: Any) -> bool:
    """Whether DATA is a URL, and not a path."""
    return isinstance(data, str) and _URL.match(data) is not None


def are_urls(data: Any) -> bool:
    """Whether `data` is a URL, or a list in which some are."""
    return is_url(data) or (isinstance(data, list | tuple) and any(map(is_url, data)))


def scheme_of(url: str) -> str:
    """The scheme of a URL in lower case, `s3`."""
    return url.partition("://")[0].lower()


def check_url(url: str) -> None:
    """Raise DataError for a scheme that is not read, or whose package is not installed."""
    scheme = scheme_of(url)
    if scheme in ("file", "local"):
        raise DataError(f"{public(url)} is a file of this machine: give its path, without {scheme}://")
    if "::" in url.partition("://")[0] or scheme not in PACKAGES:
        raise DataError(f"{public(url)}: URLs that are read begin with {', '.join(f'{one}://' for one in PACKAGES)}")
    package = PACKAGES[scheme]
    missing = [one for one in ("fsspec", package) if one not in sys.modules and importlib.util.find_spec(one) is None]
    if missing:
        how = extra("remote") if missing[0] in IN_EXTRA else f"pip install {missing[0]}"
        raise DataError(f"{scheme}:// needs the package {missing[0]}: {how}")


def path_in(url: str) -> str:
    """What follows the host or bucket, without a query: `a/b.jpg`. On web servers decoded, `a b.jpg`."""
    if scheme_of(url) in WEB:
        return unquote(urlsplit(url).path).lstrip("/")
    return url.partition("://")[2].partition("/")[2]


def public(url: str) -> str:
    """A URL as it may be shown and stored: without user, password, query and fragment."""
    url = _NAME.sub("", _LOGIN.sub("", url))
    return escape(re.split(r"[?#]", url, maxsplit=1)[0] if scheme_of(url) in WEB else url)


def redact(text: str) -> str:
    """`text` in which the URLs have no password, and no query."""
    return _QUERY.sub(r"\1?...", _LOGIN.sub("***@", text))


def names_from_urls(urls: Sequence[str]) -> list[str]:
    """The names of images by their URLs: public, and told apart by a hash where only the query differs."""
    names = [public(url) for url in urls]
    if not any("?" in url for url in urls):
        return names
    known: dict[str, set[str]] = {}
    for name, url in zip(names, urls, strict=True):
        known.setdefault(name, set()).add(url)
    return [
        f"{name}?{hashlib.sha256(url.encode()).hexdigest()[:8]}" if len(known[name]) > 1 else name
        for name, url in zip(names, urls, strict=True)
    ]


def join(folder: str, path: str) -> str:
    """The URL of `path`, a path with plain characters, from `folder` on. It stays on the host or in the bucket."""
    scheme, _, rest = folder.partition("://")
    host, _, base = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    web = scheme.lower() in WEB
    whole = posixpath.normpath("/" + base.rstrip("/") + "/" + (quote(path) if web else path)).lstrip("/")
    return f"{scheme}://{host}/{whole}"


def folder_of(url: str) -> str:
    """The URL of the folder that `url` lies in."""
    scheme, _, rest = re.split(r"[?#]", url, maxsplit=1)[0].partition("://") if scheme_of(url) in WEB else (
        url.partition("://")
    )  # fmt: skip
    return f"{scheme}://{rest.rpartition('/')[0]}"


def check_listed(source: str, paths: Sequence[str]) -> None:
    """Raise DataError for a URL in a list that may not be fetched.

    A list from elsewhere must not read files of this machine, nor use the user's credentials for another store: a list
    on a web server names http(s) URLs, one in a store also URLs of the same scheme.
    """
    own = scheme_of(source) if is_url(source) else ""
    allowed = {*WEB, own} if own else set(PACKAGES)
    for path in paths:
        if is_url(path) and scheme_of(path) not in allowed:
            raise DataError(
                f"{public(source)} lists {public(path)}: the URLs in this list may begin with "
                f"{', '.join(f'{one}://' for one in sorted(allowed))}"
            )
    schemes = Counter(scheme_of(path) if is_url(path) else "" for path in paths)
    if len(schemes) > 1 and not own and "" in schemes:
        raise DataError(f"{escape(source)} lists paths and URLs: make two lists")
