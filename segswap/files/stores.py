"""Object stores behind URLs, asked through fsspec, and again where a failure may pass.

fsspec takes endpoint and credentials from the usual environment (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, ..., or FSSPEC_S3_ENDPOINT_URL, FSSPEC_GS_TOKEN, ...). What a store reports as
passing (no answer, a server error, too many requests) is tried again for a while; missing files
and refused permissions are not. What takes long is said, and silence has an end.
"""

import errno
import hashlib
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
)

LOG = logging.getLogger("segswap")
Result = TypeVar("Result")

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "http", "https", "memory")
_ATTEMPTS = 5
_PATIENCE = 20.0  # seconds after which no further attempt begins
_SILENCE = 20.0  # seconds without a byte after which a web server is given up
_SAID_AFTER = 5.0  # seconds after which it is said what is waited for
_GONE = (404, 410)  # what a web server answers where there is no such file
_PASSING = (408, 425, 429)  # and where there is no use in asking otherwise, but for these
_TOLD = ("ETag", "Last-Modified", "Content-MD5", "Digest")  # of a version of a file, by servers
# No use in asking again: the caller's mistake, or this machine's disk.
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError,
              FileExistsError, ValueError, TypeError, LookupError, AttributeError,
              NotImplementedError)  # fmt: skip
_PERMANENT_NUMBERS = frozenset(
    {errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
)


class StorageError(OSError):
    """A store that cannot be reached, refuses, or fails again and again."""


class NoRoomError(StorageError):
    """A disk that is full, or a quota that is used up: its number, and a sentence."""

    def __str__(self) -> str:
        return str(self.strerror)


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def no_room_says(place: str, advice: str) -> Iterator[None]:
    """Where the disk is full, raise a NoRoomError that names the place and gives advice."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        if isinstance(error, NoRoomError) and not _below(error.filename, place):
            raise  # on another disk, perhaps
        said = f"{os.strerror(error.errno)} in {place}; {advice}"
        raise NoRoomError(error.errno, said, place) from error


def _below(path: str, folder: str) -> bool:
    return f"{os.path.abspath(path)}/".startswith(f"{os.path.abspath(folder)}/")


def ask(url: str, what: str, question: Callable[[Any, str], Result]) -> Result:
    """Put a question to the store of a URL, again where its failure may pass.

    Args:
        what: what is being done to the URL, for errors: read, listed, ...
        question: given the file system and the path in it.

    Raises:
        FileNotFoundError: the store says that there is no such thing.
        StorageError: it cannot be reached, refuses, or keeps failing.
        ValueError: see `open_store`.
    """
    fs, key = open_store(url)
    again = Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(_ATTEMPTS) | stop_after_delay(_PATIENCE),
        wait=_pause,
        reraise=True,
    )
    try:
        with _said_when_slow(f"waiting for {url} to be {what}"):
            return again(_put, question, fs, key)
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "missing", url) from error
    except TimeoutError as error:
        raise StorageError(
            f"{url} cannot be {what}: no answer from its server "
            f"({str(error) or f'silent for {_SILENCE:g} s'}); look whether it is up, and run again"
        ) from error
    except Exception as error:  # every store has kinds of its own
        if getattr(error, "errno", None) in NO_ROOM:
            raise  # this machine's disk
        raise StorageError(
            f"{url} cannot be {what}: {str(error) or type(error).__name__}"
        ) from error


def version_of(url: str) -> tuple[int | None, str]:
    """A file's bytes, None where its store does not tell, and a text that another content changes,
    as far as the store tells of it.

    Raises:
        FileNotFoundError, StorageError: see `ask`.
    """

    def told(fs: Any, key: str) -> tuple[int | None, str]:
        info = fs.info(key)
        # A web server's key is the URL alone.
        seen = [fs.ukey(key), info["size"], *(info.get(name) for name in _TOLD)]
        return info["size"], hashlib.sha256(repr(seen).encode()).hexdigest()

    return ask(url, "looked up", told)


def _put(question: Callable[[Any, str], Result], fs: Any, key: str) -> Result:
    try:
        return question(fs, key)
    except FileNotFoundError as error:
        # fsspec's word for whatever a web server does, a failure or nothing at all.
        cause = error.__cause__
        asked_web = isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp")
        if cause is None or not asked_web or getattr(cause, "status", None) in _GONE:
            raise
        raise cause from None


@contextmanager
def _said_when_slow(what: str) -> Iterator[None]:
    timer = threading.Timer(_SAID_AFTER, LOG.info, ["%s", what])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _may_pass(error: BaseException) -> bool:
    status = getattr(error, "status", None)
    return isinstance(error, Exception) and not (
        isinstance(error, _PERMANENT)
        or getattr(error, "errno", None) in _PERMANENT_NUMBERS
        or (isinstance(status, int) and 400 <= status < 500 and status not in _PASSING)
        or "Credentials" in type(error).__name__
    )


def _pause(retry_state: RetryCallState) -> float:
    """Seconds before the next attempt: twice as long each time, half of it up or down."""
    # tenacity's own jitter draws from the global generator, which is not ours to move on.
    return wait_exponential(multiplier=0.5)(retry_state) * random.SystemRandom().uniform(0.5, 1.5)


def open_store(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it.

    Raises:
        ValueError: a URL of another kind, above all of commands and chains of file systems, or a
            package is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise ValueError(
            f"{url} is no URL that can be used; expected a folder or one of "
            + ", ".join(f"{known}://" for known in SCHEMES)
        )
    from fsspec.core import url_to_fs  # with what it brings, only for those who need it

    try:
        # Lists are not kept: other processes write to the same place.
        return url_to_fs(url, use_listings_cache=False, **_limits(scheme))
    except ImportError as error:
        hint = "pip install 'segswap[s3]'" if scheme in ("s3", "s3a") else "install what it names"
        raise ValueError(f"{url} cannot be used: {error}; {hint}") from error


def _limits(scheme: str) -> dict[str, Any]:
    """Limits on a web server's silence in place of one on the whole of a download; other stores
    have limits of their own.
    """
    if scheme not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    limits = ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
    return {"client_kwargs": {"timeout": limits}}
