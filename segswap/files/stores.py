"""Object stores behind URLs, asked through fsspec, and again where a failure may pass.

fsspec takes endpoint and credentials from the usual environment (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, ..., or FSSPEC_S3_ENDPOINT_URL, FSSPEC_GS_TOKEN, ...). What a store reports as
passing (no answer, a server error, too many requests) is tried again for a while; missing files
and refused permissions are not.
"""

import errno
import random
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
)

Result = TypeVar("Result")

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "http", "https", "memory")
_ATTEMPTS = 5
_PATIENCE = 20.0  # seconds after which no further attempt begins
# No use in asking again: the caller's mistake, or this machine's disk.
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError,
              FileExistsError, ValueError, TypeError, LookupError, AttributeError,
              NotImplementedError)  # fmt: skip
_PERMANENT_NUMBERS = frozenset(
    {errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
)


class StorageError(OSError):
    """A store that cannot be reached, refuses, or fails again and again."""


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
        return again(question, fs, key)
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "missing", url) from error
    except Exception as error:  # every store has kinds of its own
        raise StorageError(
            f"{url} cannot be {what}: {str(error) or type(error).__name__}"
        ) from error


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Exception) and not (
        isinstance(error, _PERMANENT)
        or getattr(error, "errno", None) in _PERMANENT_NUMBERS
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
        return url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        hint = "pip install 'segswap[s3]'" if scheme in ("s3", "s3a") else "install what it names"
        raise ValueError(f"{url} cannot be used: {error}; {hint}") from error
