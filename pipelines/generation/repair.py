"""A finished dataset whose files are gone or cut short: found, and made again to the same bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from generators.sources.index import Index
from pipelines.command.progress import Progress
from pipelines.generation import attribution, card
from pipelines.generation.config import GenerateConfig
from pipelines.generation.dataset import index_folders
from segswap.data.manifest import DatasetError, listed_shards
from segswap.data.shards import shard_name
from segswap.files import storage
from segswap.files.hashes import file_hash
from segswap.files.storage import PathLike

_NAMED = 3  # files
Entry = dict[str, Any]  # of a shard in the manifest


@dataclass(frozen=True)
class Place:
    """Where in a dataset a shard stands: its split and number, and the range of its pairs."""

    split: str
    number: int
    first: int
    last: int


@dataclass(frozen=True)
class Gone:
    """What a finished dataset lacks.

    Attributes:
        shards: those that are missing or not as listed, by name.
        beside: names of the card's files that are missing.
    """

    shards: dict[str, Place]
    beside: tuple[str, ...]

    @property
    def names(self) -> str:
        """The files in a few words; nothing where all are there."""
        found = [*self.shards, *self.beside]
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        return ", ".join(found[:_NAMED]) + more


def find_gone(out: PathLike, manifest: dict[str, Any], verify: bool) -> Gone:
    """What of a finished dataset is not there as its manifest says.

    Args:
        verify: compare hashes, which takes reading all of it, and not sizes alone.

    Raises:
        DatasetError: the manifest is damaged.
    """
    there = storage.sizes(out)
    gone = {}
    entries = [(split, e) for split, es in listed_shards(out, manifest).items() for e in es]
    progress = Progress("verified", len(entries), "shards") if verify else None
    ends: dict[str, tuple[int, int]] = {}  # of each split, shards and pairs before
    for split, entry in entries:
        number, first = ends.get(split, (0, 0))
        ends[split] = number + 1, first + entry["pairs"]
        name = entry["name"]
        whole = there.get(name) == entry["bytes"] and (
            not verify or file_hash(storage.join(out, name)) == entry["sha256"]
        )
        if not whole:
            if name != shard_name(split, number):
                raise DatasetError(f"{out} lacks {name}, which segswap-generate did not make")
            gone[name] = Place(split, number, first, first + entry["pairs"])
        if progress:
            progress.add(1)
    if progress:
        progress.close()
    return Gone(gone, tuple(name for name in card.FILES if there.get(name) is None))


def check_whole(out: PathLike, manifest: dict[str, Any], verify: bool) -> None:
    """Raise DatasetError where a dataset that is to be extended lacks something."""
    if names := find_gone(out, manifest, verify).names:
        before = manifest["config"]
        raise DatasetError(
            f"{out} lacks {names}; make that first: the same command without --extend, with "
            f"--pairs {before['pairs']} --val-pairs {before['val_pairs']}"
        )


def check_shard(out: PathLike, manifest: dict[str, Any], made: Entry) -> None:
    """Take a shard away again that has other bytes than the one that is listed.

    Raises:
        DatasetError: it had.
    """
    listed = {e["name"]: e for shards in listed_shards(out, manifest).values() for e in shards}
    if made != listed[made["name"]]:
        storage.remove_file(storage.join(out, made["name"]))
        raise DatasetError(
            f"{made['name']} of {out} cannot be made again to the same bytes: what it is made from "
            "has changed, or this is another version of segswap or of what it stands on; put it "
            "back from a copy, or choose another folder"
        )


def restore_card(config: GenerateConfig, manifest: dict[str, Any], names: Iterable[str]) -> None:
    """Write those files of the card that are gone; all shards are there.

    Raises:
        DatasetError: a shard is damaged.
    """
    try:
        used = attribution.read_used(config.out)
    except FileNotFoundError:
        used = attribution.used_in(config.out, listed_shards(config.out, manifest))
    indexes = [Index.load(folder) for folder in index_folders(config)]
    card.write(config.out, manifest, attribution.rows(used, indexes), names)
