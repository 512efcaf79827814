"""Indexes kept between jobs, so that the same inputs are indexed once."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generators.sources.index import Index
from segswap.files import storage

_VERSION = 2  # of what stands in an index, and of which segments are kept; to be raised with them
Indexed = tuple[Index, list[dict[str, Any]]]


def cache_folder() -> Path:
    """Where things are kept between jobs: SEGSWAP_CACHE, or segswap in the user's cache folder."""
    if folder := os.environ.get("SEGSWAP_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segswap"


def fingerprint(path: str | os.PathLike[str]) -> str:
    """SHA-256 of names, sizes and times of a file, or of all files below a folder or URL."""
    if storage.is_url(path):
        return storage.fingerprint(str(path))
    digest = hashlib.sha256(os.fsencode(os.path.abspath(path)))
    waiting = [os.fspath(path)] if os.path.isdir(path) else []
    if not waiting and os.path.exists(path):
        state = os.stat(path)
        digest.update(f"{state.st_size} {state.st_mtime_ns}".encode())
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    # A link to nothing has only itself to look at.
                    state = entry.stat(follow_symlinks=os.path.exists(entry.path))
                    digest.update(os.fsencode(entry.path))
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
    text = json.dumps({"version": _VERSION, **identity}, sort_keys=True)
    kept = cache_folder() / "indexes" / hashlib.sha256(text.encode()).hexdigest()[:32]
    if kept.is_dir():
        return Index.load(kept / "index"), json.loads((kept / "skipped.json").read_text())
    index, skipped = build()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".", dir=kept.parent))
    except OSError:
        return index, skipped
    try:
        index.save(made / "index")
        (made / "skipped.json").write_text(json.dumps(skipped))
        os.replace(made, kept)
    except OSError:  # no room for it, or another job was first
        return index, skipped
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return Index.load(kept / "index"), skipped
