"""The manifest of a dataset, `segswap.json`: lists the shards of its splits, and is written last.

A folder or URL that has one holds a finished dataset.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from segswap.data.pair import FORMAT
from segswap.files import storage
from segswap.files.storage import PathLike

MANIFEST = "segswap.json"
_SHARD_NAME = re.compile(r"\w[\w.-]*\.tar")


class DatasetError(ValueError):
    """A dataset that is missing, unfinished, of another format, or damaged."""


def read_manifest(dataset: PathLike) -> dict[str, Any]:
    """A dataset's manifest.

    Args:
        dataset: its folder, or its URL.

    Raises:
        DatasetError: there is none, it cannot be read, or its format is another one.
        StorageError: its store cannot be read.
    """
    path = storage.join(dataset, MANIFEST)
    try:
        manifest = json.loads(storage.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(
            f"{dataset} is no finished dataset: it has no {MANIFEST}; "
            "run segswap-generate with the same flags to finish it"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    check_format(manifest, path)
    if not isinstance(manifest.get("splits"), dict):
        raise DatasetError(f"{path} lists no splits")
    return manifest


def split_shards(dataset: PathLike, split: str) -> list[dict[str, Any]]:
    """Manifest entries of a split's shards, in order.

    Raises:
        DatasetError: the dataset has no such split or no pair in it, or its manifest is damaged.
    """
    splits = listed_shards(dataset, read_manifest(dataset))
    if split not in splits:
        raise no_split(dataset, split, splits)
    return splits[split]


def no_split(dataset: PathLike, split: str, there: Iterable[str]) -> DatasetError:
    """The error for a split that a dataset has no pairs in."""
    return DatasetError(f"{dataset} has no pairs in split {split!r}; it has {list(there)}")


def listed_shards(dataset: PathLike, manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """A manifest's entries of the shards of every split that has pairs.

    Raises:
        DatasetError: one of them is damaged.
    """
    splits = manifest["splits"]
    try:
        listed = {split: list(content["shards"]) for split, content in splits.items()}
        entries = [entry for shards in listed.values() for entry in shards]
        for entry in entries:
            if not _SHARD_NAME.fullmatch(entry["name"]):
                raise DatasetError(f"{dataset} lists a shard outside of it: {entry['name']!r}")
        kinds = {"pairs": int, "bytes": int, "sha256": str}
        whole = all(isinstance(entry[k], kind) for entry in entries for k, kind in kinds.items())
    except (LookupError, TypeError):
        whole = False
    if not whole:
        raise DatasetError(
            f"{storage.join(dataset, MANIFEST)} is damaged: a shard is listed without its name, "
            "pairs, bytes or sha256; generate the dataset again"
        )
    return {split: shards for split, shards in listed.items() if sum(e["pairs"] for e in shards)}


def datasets_with(datasets: Sequence[str], split: str) -> list[str]:
    """Those of the datasets that have pairs in a split.

    Raises:
        DatasetError: one is no finished dataset, or none of them has such pairs.
    """
    chosen = [
        dataset for dataset in datasets if split in listed_shards(dataset, read_manifest(dataset))
    ]
    if not chosen:
        raise DatasetError(f"none of {', '.join(datasets)} has pairs in split {split!r}")
    return chosen


def check_format(record: Any, what: str) -> None:
    """Raise DatasetError unless a record's `format` is the one that this version reads."""
    if not isinstance(record, dict):
        raise DatasetError(f"{what} is {type(record).__name__}, not a JSON object")
    if record.get("format") != FORMAT:
        raise DatasetError(
            f"{what} has format {record.get('format')!r}; this version of segswap reads {FORMAT}"
        )
