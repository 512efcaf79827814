"""The manifest of a dataset, `segswap.json`: lists the shards of its splits, and is written last.

A folder or URL that has one holds a finished dataset.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from segswap.data.pair import FORMAT
from segswap.data.schema import SHARD, TOLD
from segswap.files import storage
from segswap.files.records import all_checked, checked, parse_json
from segswap.files.storage import PathLike

MANIFEST = "segswap.json"
_KEYS = 10**9  # samples are named by nine digits
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
        content = storage.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(
            f"{dataset} is no finished dataset: it has no {MANIFEST}; "
            "run segswap-generate with the same flags to finish it"
        ) from error
    try:
        manifest = parse_json(content, path)
        check_format(manifest, path)
        return checked(manifest, {"splits": (dict,)}, path)
    except ValueError as error:
        raise DatasetError(str(error)) from error


def check_told(dataset: PathLike, manifest: dict[str, Any]) -> None:
    """Raise DatasetError where what a manifest tells beside its splits is of other types."""
    path = storage.join(dataset, MANIFEST)
    try:
        checked(manifest, TOLD, path)
        for key in ("inputs", "skipped"):
            all_checked(manifest.get(key, []), {}, f"{path}: {key}")
    except ValueError as error:
        raise DatasetError(str(error)) from error


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
    path = storage.join(dataset, MANIFEST)
    listed = {}
    try:
        for split, content in manifest["splits"].items():
            shards = checked(content, {"shards": (list,)}, f"{path}: {split}")["shards"]
            listed[split] = all_checked(shards, SHARD, f"{path}: {split}.shards")
    except ValueError as error:
        raise DatasetError(f"{error}; generate the dataset again") from error
    for entry in (entry for shards in listed.values() for entry in shards):
        if not _SHARD_NAME.fullmatch(entry["name"]):
            raise DatasetError(f"{dataset} lists a shard outside of it: {entry['name']!r}")
        if not 0 <= entry["pairs"] < _KEYS:
            raise DatasetError(
                f"{path} lists {entry['pairs']} pairs in {entry['name']}; expected 0 to {_KEYS - 1}"
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
