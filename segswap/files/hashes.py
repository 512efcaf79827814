"""SHA-256 of files: what says that two of them hold the same."""

import hashlib
from typing import BinaryIO

from segswap.files import storage


def file_hash(path: storage.PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; what a URL names is read whole."""
    if storage.is_url(path):
        return hashlib.sha256(storage.read_bytes(path)).hexdigest()
    with open(storage.local_path(path), "rb") as file:
        return content_hash(file)


def content_hash(file: BinaryIO) -> str:
    """SHA-256 of what is left to read of an open file, in hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
