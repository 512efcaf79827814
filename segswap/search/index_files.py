"""The files of an index, and what others may have written in them.

An index is a folder:

    index.json                   settings (format, model, fingerprint, mirrored), how often it was
                                 finished (version), the names of the encodings' tensors (encoded),
                                 and what was skipped
    shard-00000.encoded.NAME.npy (n, ...), float16 where these are numbers with fractions: what the
                                 matcher's `encode` gave for n images, a file a tensor
    shard-00000.compared.npy     float16 (n, D, h, w), of these what the score compares
    shard-00000.descriptors.npy  float32 (n, D), of length 1
    shard-00000.json             the shard's images; written last, so a shard with it is whole
    images-1.npy                 all images in the order of their paths; see `entry_type`
    descriptors-1.npy            float32 (N, D), in the same order

The last two, named by the version, are put together from the shards when all of these are there.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from segswap.files.records import ABSENT, NONE, Schema, all_checked, read_record
from segswap.files.storage import is_url, local_path

FORMAT = 2
SETTINGS = "index.json"
_SCHEMA: Schema = {
    "format": (int,), "model": (str,), "fingerprint": (str,), "mirrored": (bool,),
    "version": (int,), "encoded": (list, ABSENT), "skipped": (list,),
}  # fmt: skip
_RECORD: Schema = {
    "number": (int,), "images": (list,), "skipped": (list,), "encoded": (list,),
    "seconds": (float,), "waiting": (float,),
}  # fmt: skip
_ENTRY: Schema = {
    "image": (str,), "state": (list, NONE), "sha256": (str,), "width": (int,), "height": (int,),
}  # fmt: skip
_TENSOR = re.compile(r"[\w-]+")  # a name that is part of a file's


def entry_type(longest: int) -> np.dtype[Any]:
    """Type of an image's row in images.npy, for paths of so many bytes."""
    return np.dtype([
        ("image", f"S{max(longest, 1)}"),  # path, UTF-8
        ("sha256", "S64"),  # of the pixels
        ("width", "<i4"), ("height", "<i4"),
        ("shard", "<i4"), ("row", "<i4"),
    ])  # fmt: skip


def read_settings(folder: Path) -> dict[str, Any]:
    """What index.json holds.

    Raises:
        ValueError: there is no index, or another version wrote it.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise ValueError(f"{folder} is no index ({SETTINGS} is not there); make one: segswap-index")
    try:
        written = read_record(path, {"format": (int,)})["format"]
        if written != FORMAT:
            raise ValueError(
                f"it is of format {written!r}, and this version of segswap reads {FORMAT}"
            )
        settings = read_record(path, _SCHEMA)
        for each in all_checked(settings["skipped"], (list,), f"{path}: skipped"):
            if len(all_checked(each, (str,), f"{path}: skipped")) != 2:
                raise ValueError(f"{path}: skipped has {each}; expected pairs of path and reason")
        names = all_checked(settings.get("encoded", []), (str,), f"{path}: encoded")
        if bad := [name for name in names if not _TENSOR.fullmatch(name)]:
            raise ValueError(f"{path}: encoded names {bad[0]!r}; expected letters and digits")
        if settings["version"] < 0 or (settings["version"] and not names):
            raise ValueError(f"{path} has version {settings['version']}, and encoded {names}")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete {folder} and run segswap-index again"
        ) from error
    return settings


def are_entries(found: np.dtype[Any]) -> bool:
    """Whether an array's type is one of `entry_type`."""
    names = found.names or ()
    return "image" in names and found == entry_type(found["image"].itemsize)


def read_shard_record(path: Path) -> dict[str, Any]:
    """What the record of a shard holds; names are as this process's locale has them.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        record = read_record(path, _RECORD)
        if record_file(path.parent, record["number"]) != path:
            raise ValueError(f"it is of shard {record['number']}")
        all_checked(record["images"], _ENTRY, f"{path}: images")
        all_checked(record["encoded"], (str,), f"{path}: encoded")
        for each in all_checked(record["skipped"], (list,), f"{path}: skipped"):
            if len(all_checked(each, (str,), f"{path}: skipped")) != 2:
                raise ValueError(f"{path}: skipped has {each}; expected path and reason")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete {path.parent} and run segswap-index again"
        ) from error
    # Another locale may have written it.
    images = [entry | {"image": local_path(entry["image"])} for entry in record["images"]]
    skipped = [(local_path(image), reason) for image, reason in record["skipped"]]
    return record | {"images": images, "skipped": skipped}


def encoded_file(folder: Path, shard: int, name: str) -> Path:
    """A tensor of the encodings of a shard's images."""
    return folder / f"shard-{shard:05d}.encoded.{name}.npy"


def compared_file(folder: Path, shard: int) -> Path:
    """Of the encodings of a shard's images, what the score compares."""
    return folder / f"shard-{shard:05d}.compared.npy"


def descriptors_file(folder: Path, shard: int) -> Path:
    """The descriptors of a shard's images."""
    return folder / f"shard-{shard:05d}.descriptors.npy"


def record_file(folder: Path, shard: int) -> Path:
    """The record of a shard, by which it is whole."""
    return folder / f"shard-{shard:05d}.json"


def images_file(folder: Path, version: int) -> Path:
    """All images of a version of the index."""
    return folder / f"images-{version}.npy"


def vectors_file(folder: Path, version: int) -> Path:
    """All descriptors of a version of the index."""
    return folder / f"descriptors-{version}.npy"


def state_of(image: str) -> list[int] | None:
    """What changes with a file: its length and time of change; [] without one, None of a URL."""
    if is_url(image):
        return None
    try:
        status = os.stat(image)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
