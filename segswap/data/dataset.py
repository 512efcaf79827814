"""A dataset as users meet it: how many pairs it has, the pairs themselves, and what they are."""

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

from segswap.data.manifest import check_told, listed_shards, no_split, read_manifest
from segswap.data.pair import Pair
from segswap.data.shards import listed_shard
from segswap.files import storage


def open_dataset(path: storage.PathLike) -> "Dataset":
    """Open a dataset that segswap-generate, or another program, has made.

    Args:
        path: its folder, or its fsspec URL.

    Raises:
        DatasetError: there is none, it is unfinished, of another format, or its manifest damaged.
        StorageError: its store cannot be read.
    """
    manifest = read_manifest(path)
    check_told(path, manifest)
    return Dataset(os.fspath(path), manifest, listed_shards(path, manifest))


@dataclass(frozen=True, repr=False, eq=False)
class Dataset:
    """A finished dataset. Its manifest is read once: pairs that are added later are not seen.

    Attributes:
        path: its folder or URL.
        manifest: `segswap.json` as it stands: config, splits, inputs, skipped, rejected, ...
        shards: of every split that has pairs, as the manifest lists them.
    """

    path: str
    manifest: dict[str, Any]
    shards: dict[str, list[dict[str, Any]]]

    def __len__(self) -> int:
        """Pairs of all splits together."""
        return sum(self.splits.values())

    def __repr__(self) -> str:
        return f"Dataset({self.path!r}, {self.splits})"

    @property
    def splits(self) -> dict[str, int]:
        """The splits that have pairs, and how many."""
        return {split: ends[-1] for split, ends in self._ends.items()}

    @property
    def facts(self) -> dict[str, Any]:
        """What its card says: generator, created, seed, pairs, shards and bytes by split, images,
        segments and licences of its inputs, how many inputs were skipped, draws that were rejected
        by reason, and the config.
        """
        known = {key: self.manifest.get(key) for key in ("generator", "created", "seed")}
        splits = {
            split: {
                "pairs": self.splits[split], "shards": len(entries),
                "bytes": sum(entry["bytes"] for entry in entries),
            }
            for split, entries in self.shards.items()
        }  # fmt: skip
        told = ("name", "images", "segments", "licences")
        inputs = [
            {key: each[key] for key in told if key in each}
            for each in self.manifest.get("inputs", [])
        ]
        skipped = len(self.manifest.get("skipped", []))
        further = {key: self.manifest.get(key, {}) for key in ("rejected", "config")}
        return known | {"splits": splits, "inputs": inputs, "skipped": skipped} | further

    def pair(self, number: int, split: str = "train") -> Pair:
        """The pair at a position in a split, from 0.

        A shard at a URL is copied to this machine whole when its first pair is asked for.

        Raises:
            IndexError: there are fewer pairs.
            DatasetError: there is no such split, or the shard is missing or damaged.
        """
        ends = self._ends_of(split)
        if not 0 <= number < ends[-1]:
            raise IndexError(f"there is no pair {number} in {split}; it has 0 to {ends[-1] - 1}")
        shard = bisect_right(ends, number)
        entry = self.shards[split][shard]
        opened = _open(
            storage.join(self.path, entry["name"]), entry["pairs"], entry["bytes"], entry["sha256"]
        )
        return opened.read(number - ends[shard] + entry["pairs"])

    def pairs(self, split: str = "train") -> Iterator[Pair]:
        """All pairs of a split, in order; raises what `pair` does."""
        return (self.pair(number, split) for number in range(self._ends_of(split)[-1]))

    @cached_property
    def _ends(self) -> dict[str, list[int]]:
        """For each split, the pairs up to the end of each of its shards."""
        return {
            split: list(accumulate(entry["pairs"] for entry in entries))
            for split, entries in self.shards.items()
        }

    def _ends_of(self, split: str) -> list[int]:
        if split not in self._ends:
            raise no_split(self.path, split, self._ends)
        return self._ends[split]


# A dataset made anew in another's place is listed with other hashes.
_open = lru_cache(maxsize=64)(listed_shard)
