"""Kept on this machine: what one job leaves to the next, and copies of what URLs name.

Copies are there to be mapped into memory, or read here and there. One is made once on each machine,
for all its processes, in a folder of this user's below TMPDIR. It is looked up by URL and version.
The longest unused are removed when all of them together exceed CACHE_BYTES, but for those that
another process makes or has just asked for.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from segswap.files import storage, stores

CACHE_BYTES = 4 << 30
_ASKED_FOR = 60.0  # seconds within which a process opens the copy that it was told of
_MADE = 3600.0  # seconds without a change after which a download is of a process that was killed


def cache_folder() -> Path:
    """Where things are kept between jobs: SEGSWAP_CACHE, or segswap in the user's cache folder."""
    if folder := os.environ.get("SEGSWAP_CACHE"):
        return Path(folder)
    return user_cache_path("segswap", appauthor=False, opinion=False)


def local_copy(path: storage.PathLike, sha256: str = "") -> str:
    """The path of a local file with a file's content: itself, or a copy of what a URL names.

    Args:
        path: the file or its URL.
        sha256: its hash where that is known, so that another content has another copy, whatever
            the store tells; the content is not compared with it.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: it cannot be read from its store.
    """
    if not storage.is_url(path):
        return storage.local_path(path)
    url = os.fspath(path)
    length, told = stores.version_of(url)
    version = hashlib.sha256(f"{told} {sha256}".encode()).hexdigest()
    copy = _copies_of(url.rpartition("/")[0]) / version[:32] / storage.base_name(url)
    with _locked(version):
        if copy.exists():
            os.utime(copy)
            return str(copy)
        _make_room(length or 0)
        copy.parent.mkdir(parents=True, exist_ok=True)
        advice = "copies of what is at URLs are kept there: make room, or set TMPDIR"
        with stores.no_room_says(str(_cache()), advice), storage.replacing(copy) as file:
            # By name: few file systems of fsspec write into an open file.
            stores.ask(url, "read", lambda fs, key: fs.get_file(key, file.name))
            found = os.stat(file.name).st_size
            if length is not None and found != length:
                raise stores.StorageError(f"{url}: got {found} of {length} bytes")
    return str(copy)


def forget_copies(folder: storage.PathLike) -> None:
    """Remove this machine's copies of the files directly in a folder of a store."""
    if storage.is_url(folder):
        shutil.rmtree(_copies_of(os.fspath(folder)), ignore_errors=True)


def _copies_of(folder: str) -> Path:
    return _cache() / hashlib.sha256(folder.rstrip("/").encode()).hexdigest()[:32]


def _cache() -> Path:
    """The folder of the copies: this user's alone, in a place where others may write too."""
    user = os.getuid()
    cache = Path(tempfile.gettempdir()) / f"segswap-{user}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.is_symlink() or cache.stat().st_uid != user:
        raise stores.StorageError(
            f"{cache} belongs to another user; set TMPDIR to a folder of your own"
        )
    return cache


@contextmanager
def _locked(version: str) -> Iterator[None]:
    """One process at a time makes the copy of a version; few others have to wait with it."""
    import fcntl  # not on every system, and not needed for local datasets

    with open(_cache() / f"{hashlib.sha256(version.encode()).hexdigest()[:2]}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_room(needed: int) -> None:
    copies = []
    for copy in _cache().glob("*/*/*"):
        try:
            found = copy.stat()
        except FileNotFoundError:  # another process makes room too
            continue
        copies.append((found.st_mtime, found.st_size, copy))
    excess = sum(length for _, length, _ in copies) + needed - CACHE_BYTES
    now = time.time()
    for changed, length, copy in sorted(copies):
        if excess <= 0:
            return
        # What `storage.replacing` writes has a name that begins so.
        if now - changed < (_MADE if copy.name.startswith(".") else _ASKED_FOR):
            continue
        copy.unlink(missing_ok=True)
        excess -= length
