"""--extend: a finished dataset gets more pairs, in further shards; those that it has stay."""

from dataclasses import dataclass, field
from typing import Any

from generators.sources.index import Index
from pipelines.generation import attribution
from pipelines.generation.config import SPLITS, GenerateConfig
from pipelines.generation.dataset import (
    GROWING,
    begun,
    check_same,
    index_folders,
    own_manifest,
)
from pipelines.generation.pairs import Losses, make_pairs
from segswap.data.coco import Skipped
from segswap.data.manifest import MANIFEST, DatasetError
from segswap.data.shards import Shard, encode_pair
from segswap.files import storage
from segswap.files.storage import PathLike


@dataclass(frozen=True)
class Earlier:
    """The dataset that gets more pairs; without values, none.

    Attributes:
        manifest: its manifest.
        used: the images whose pixels stand in it.
    """

    manifest: dict[str, Any] = field(default_factory=dict)
    used: set[attribution.Used] = field(default_factory=set)

    def shards(self, split: str) -> list[dict[str, Any]]:
        """The manifest's entries of a split's shards."""
        return self.manifest["splits"][split]["shards"] if self.manifest else []

    def pairs(self, split: str) -> int:
        """How many pairs a split has."""
        return sum(shard["pairs"] for shard in self.shards(split))

    def records(self, skipped: Skipped) -> list[dict[str, Any]]:
        """What stands for the records of its shards, which are no longer there: the first has what
        the manifest says of all. How long their stages took is not known.

        Args:
            skipped: inputs that could not be indexed, which the manifest lists, too.
        """
        listed = [entry for split in SPLITS for entry in self.shards(split)]
        found = [{"shard": e, "rejected": {}, "skipped": [], "stages": {}} for e in listed]
        if found:
            found[0]["rejected"] = self.manifest["rejected"]
            found[0]["skipped"] = [i for i in self.manifest["skipped"] if i not in skipped]
        return found


def to_extend(out: PathLike, settings: dict[str, Any]) -> Earlier:
    """The finished dataset in OUT, which is to be one of these settings.

    Raises:
        DatasetError: there is none, it is of other settings or of more pairs, or other pairs are
            being added to it; what differs is named.
        ValueError: OUT cannot be written to.
    """
    storage.check_writable(out)
    if MANIFEST not in storage.entries(out):
        raise DatasetError(
            f"--extend: {out} holds no finished dataset; make or finish it by the same command "
            "without --extend"
        )
    manifest = own_manifest(out)
    before = manifest["config"]
    check_same(before | {name: settings[name] for name in GROWING}, settings, out)
    _check_grows(before, settings, out)
    further = begun(out)
    if further not in (None, before):  # else of a run killed just before it would remove that
        check_same(further, settings, out)
    try:
        return Earlier(manifest, attribution.read_used(out))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{out} has no {attribution.FILE}, which names the images that its pairs are made "
            "from; the command that made it, without --extend, makes that file again"
        ) from error


def _check_grows(before: dict[str, Any], now: dict[str, Any], out: PathLike) -> None:
    for name in sorted(GROWING):
        flag = "--" + name.replace("_", "-")
        if now[name] < before[name]:
            raise DatasetError(
                f"{flag} is {now[name]}, but {out} has {before[name]} already; --extend adds "
                f"pairs: give the new total, {before[name]} or more"
            )
        if now[name] > before[name] == 0:
            raise DatasetError(
                f"{flag} is {now[name]}, but {out} has none of that split, and its pairs are made "
                "of all images, which the splits would share; choose another folder"
            )


def _of_a_network(index: Index) -> str:
    if not index.header["proposals"]:
        return ""
    return (
        f" (proposals of {index.header['proposals']}; a network's differ by rounding from one "
        "machine to another: extend it where it was made)"
    )


def check_unchanged(config: GenerateConfig, earlier: Earlier) -> None:
    """Raise DatasetError unless the pairs that a dataset has would be made the same way today: the
    inputs by their indexes, and all else by the first pair, made again.
    """
    if not earlier.manifest:
        return
    check_inputs(config, earlier.manifest)
    split = next(split for split in SPLITS if earlier.pairs(split))
    first = Shard.open(storage.join(config.out, earlier.shards(split)[0]["name"])).members(0)
    (again,) = make_pairs(config, split, range(1), Losses())
    made = encode_pair(again, config.amount.grid_stride)
    for name, data in made.items():
        part = name.partition(".")[2]
        # A network's pixels may differ by rounding where it runs on another device.
        if data != first.get(part) and not (config.styling.style == "adain" and "styled" in part):
            raise DatasetError(
                f"the first pair of {config.out} would have another {part} today: what it is made "
                "from has changed, or this is another version of segswap or of what it stands on; "
                "choose another folder"
            )


def check_inputs(config: GenerateConfig, manifest: dict[str, Any]) -> None:
    """Raise DatasetError unless the inputs, by their indexes, are those that a dataset was made
    from.
    """
    for folder, entry in zip(index_folders(config), manifest["inputs"], strict=True):
        now = Index.load(folder)
        if now.header["fingerprint"] != entry["fingerprint"]:
            raise DatasetError(
                f"the inputs {entry['name']} have changed since {config.out} was made: there were "
                f"{entry['images']} images and {entry['segments']} segments, and are {len(now)} "
                f"and {len(now.arrays['segments'])}; put them back, or choose another folder"
                + _of_a_network(now)
            )
