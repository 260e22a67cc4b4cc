"""Retry failed reads of a store; distinguish a missing object and refused access from an outage."""

import asyncio
import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from moco.data.loader.threads import STOP_EVENT, Abandoned
from moco.data.remote.urls import public, redact
from moco.data.sources.images import StoreError, StoreRefused
from moco.text import duration, one_line

Result = TypeVar("Result")

FIRST, LONGEST = 0.2, 20.0  # [s] between the first two tries, and at most
FEWEST = 4  # tries, however little patience there is
TRANSPORT = ("aiohttp", "aiobotocore", "botocore", "urllib3", "requests", "gcsfs", "azure", "fsspec")  # modules
REFUSED = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError")


class Truncated(OSError):
    """An answer with another number of bytes than was expected."""


def wait_for(seconds: float) -> None:
    """Sleep. Raises Abandoned when the consumer of this thread's work has stopped."""
    stopped = STOP_EVENT.get()
    if stopped is None:
        time.sleep(seconds)
    elif stopped.wait(seconds):
        raise Abandoned


def retry(read: Callable[[], Result], url: str, *, patience: float, wait: Callable[[float], None] = wait_for) -> Result:
    """`read()`, again after 0.2 s, 0.4 s, ... (times a random factor of 0.5 to 1) as long as the store fails.

    Raises:
        FileNotFoundError: the store says that there is no such object.
        StoreError: it refuses, or still fails after `patience` seconds. Abandoned: see `wait_for`.
        Other errors of `read`, which are not the store's.
    """
    began, tries = time.monotonic(), 0
    while True:
        try:
            return read()
        except Exception as error:
            cause, tries = _cause_of(error), tries + 1
            status = getattr(cause, "status", None)
            if status in (404, 410) or (status is None and isinstance(cause, FileNotFoundError | IsADirectoryError)):
                raise FileNotFoundError(errno.ENOENT, "not in the store any more, or never was", public(url)) from None
            if _is_refused(cause, status):
                raise StoreRefused(_refusal(url, cause)) from None
            if not _is_passing(cause, status):
                raise
            passed = time.monotonic() - began
            if passed >= patience and tries >= FEWEST:
                raise StoreError(_outage(url, cause, tries, passed)) from None
        wait(min(LONGEST, FIRST * 2 ** (tries - 1)) * random.uniform(0.5, 1))


def _cause_of(error: Exception) -> BaseException:
    """What went wrong: fsspec turns every failed look-up on a web server into FileNotFoundError."""
    cause = error.__cause__
    hidden = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    return cause if isinstance(error, FileNotFoundError) and cause is not None and hidden else error


def _is_refused(error: BaseException, status: object) -> bool:
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 416, 425, 429)
    return isinstance(error, PermissionError) or type(error).__name__ in REFUSED


def _is_passing(error: BaseException, status: object) -> bool:
    """Whether another try may succeed."""
    if isinstance(status, int):
        return status >= 500 or status in (408, 425, 429)
    if isinstance(error, ValueError):  # a URL, a redirect
        return False
    ours = isinstance(error, OSError | EOFError | asyncio.TimeoutError)
    return ours or type(error).__module__.partition(".")[0] in TRANSPORT


def _refusal(url: str, error: BaseException) -> str:
    return (
        f"{public(url)} is refused ({describe_error(error)}): check the address, and the credentials (docs/remote.md). "
        "Then give the same command again: a run resumes"
    )


def _outage(url: str, error: BaseException, tries: int, passed: float) -> str:
    return (
        f"{public(url)} cannot be read: {tries} tries in {duration(passed)}, the last: {describe_error(error)}. Check "
        "the network and the store, then give the same command again: a run resumes from its last checkpoint "
        "(MOCO_REMOTE_PATIENCE=MINUTES waits longer)"
    )


def describe_error(error: BaseException) -> str:
    """What happened, in a line without credentials."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"HTTP {status} {getattr(error, 'message', '')}".strip()
    text = str(error) or type(error).__name__
    return one_line(redact(text))[:200]
