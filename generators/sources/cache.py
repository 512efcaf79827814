"""Indexes kept between jobs, so that the same inputs are indexed once."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from generators.sources.index import Index
from segswap.files import limits, storage
from segswap.files.cache import cache_folder
from segswap.files.folders import files_below
from segswap.files.records import parse_json

_VERSION = 3  # of what stands in an index, and of which segments are kept; to be raised with them
Indexed = tuple[Index, list[dict[str, Any]]]


def fingerprint(path: str | os.PathLike[str]) -> str:
    """SHA-256 of names, sizes and times of a file, or of all files below a folder or URL, as
    `folders.files_below` finds them."""
    if storage.is_url(path):
        return storage.fingerprint(str(path))
    digest = hashlib.sha256(os.fsencode(os.path.abspath(path)))
    names = [""]
    if os.path.isdir(path):
        files = files_below(path)
        names = sorted([*files.plain, *files.links])
        digest.update(json.dumps(sorted(files.passed)).encode())
    for name in names:
        with suppress(OSError):  # it is gone again, or was never there
            state = os.stat(os.path.join(path, name) if name else path)
            digest.update(os.fsencode(name))
            digest.update(f" {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def cached_index(identity: dict[str, Any], build: Callable[[], Indexed]) -> Indexed:
    """What `build` gives for inputs of this identity, built once and found again next time.

    Args:
        identity: everything that the index depends on, as JSON values.
        build: makes the index and lists what had to be skipped.

    Returns:
        The index, mapped from the cache folder, and what was skipped. Where the cache folder cannot
        be written to, the index stays in memory and is built again next time.
    """
    text = json.dumps({"version": _VERSION, **identity, **limits.told()}, sort_keys=True)
    kept = cache_folder() / "indexes" / hashlib.sha256(text.encode()).hexdigest()[:32]
    listed = kept / "skipped.json"  # written last: where it is, the index is whole
    if listed.is_file():
        with suppress(ValueError):  # a file was damaged since: it is made anew
            return Index.load(kept / "index"), parse_json(listed.read_bytes(), str(listed))
    index, skipped = build()
    try:
        # Another job that does the same writes the same files.
        index.save(kept / "index")
        storage.write_atomically(listed, json.dumps(skipped).encode())
    except OSError:  # no room for it, or no such folder to be made
        return index, skipped
    return Index.load(kept / "index"), skipped
