"""Pairs on disk: tar shards in WebDataset naming.

Format 1: a shard `SPLIT-NNNNNN.tar` holds samples whose members are `KEY.source.jpg`,
`KEY.target.jpg`, their styled versions where there are any, `KEY.source_mask.png`,
`KEY.target_mask.png` and `KEY.json`. The manifest lists the shards, see `manifest`.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from segswap.data.manifest import DatasetError, check_format, split_shards
from segswap.data.pair import FORMAT, Pair, PairObject
from segswap.data.schema import OBJECT, ORIGIN_READ, RECORD
from segswap.data.truth import stride_grids
from segswap.files import cache, storage
from segswap.files.hashes import content_hash
from segswap.files.images import encode_jpeg, encode_png, read_image, read_labels
from segswap.files.records import NONE, all_checked, checked, parse_json
from segswap.files.stopwatch import stage
from segswap.files.storage import PathLike
from segswap.files.stores import StorageError

JPEG_QUALITY = 95
_MEMBER = re.compile(
    r"(?P<key>[0-9]{9})\.(?P<part>(source|target)(_styled)?\.jpg|(source|target)_mask\.png|json"
    r"|(source|target)_grid\.npy)"
)
_MEMBER_LIMIT = 1 << 30
Members = dict[str, bytes]  # of one sample: part ("source.jpg", "json", ...) to content


def shard_name(split: str, number: int) -> str:
    """A shard's file name."""
    return f"{split}-{number:06d}.tar"


# --- writing ---------------------------------------------------------------------------------


def write_shard(
    path: PathLike, pairs: Iterable[Pair], *, grid_stride: int | None = None
) -> dict[str, Any]:
    """Write pairs as one shard, which appears whole: see `storage.replacing`.

    Equal pairs give equal bytes: no time, owner or name of the machine stands in the file.

    Args:
        path: of the shard, or its URL.
        grid_stride: also write grids, see `encode_pair`.

    Returns:
        The shard's manifest entry: name, pairs, bytes, sha256.
    """
    count = 0
    with storage.replacing(path) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for pair in pairs:
                with stage("encode"):
                    members = encode_pair(pair, grid_stride)
                with stage("write"):
                    for name, data in members.items():
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
                count += 1
        length = file.tell()
        file.seek(0)
        digest = content_hash(file)
    return {
        "name": storage.base_name(path), "pairs": count, "bytes": length, "sha256": digest
    }  # fmt: skip


def encode_pair(pair: Pair, grid_stride: int | None = None) -> dict[str, bytes]:
    """A pair's members of a shard: name to content, in the order in which they are written.

    Args:
        grid_stride: also write `stride_grids` of cells of so many pixels.
    """
    key = f"{pair.index:09d}"
    members = {}
    for part in ("source", "target", "source_styled", "target_styled"):
        image = getattr(pair, part)
        if image is not None:
            members[f"{key}.{part}.jpg"] = encode_jpeg(image, JPEG_QUALITY)
    for part in ("source_mask", "target_mask"):
        members[f"{key}.{part}.png"] = encode_png(getattr(pair, part))
    record = {
        "format": FORMAT,
        "index": pair.index,
        "width": pair.width,
        "height": pair.height,
        "objects": [
            {
                "label": item.label,
                "target_from_source": item.target_from_source.tolist(),
                "category": item.category,
                "segment": item.segment,
                "blend": item.blend,
            }
            for item in pair.objects
        ],
        "background": pair.background,
        "styles": pair.styles,
        "rng": list(pair.rng),
    }
    members[f"{key}.json"] = json.dumps(record).encode()
    if grid_stride is not None:
        for side, grid in zip(("source", "target"), stride_grids(pair, grid_stride), strict=True):
            file = io.BytesIO()
            np.save(file, grid, allow_pickle=False)
            members[f"{key}.{side}_grid.npy"] = file.getvalue()
    return members


# --- reading ---------------------------------------------------------------------------------


def decode_pair(members: dict[str, bytes]) -> Pair:
    """A Pair from one sample's members: part ("source.jpg", "json", ...) to content.

    Raises:
        DatasetError: a member is missing or the format is another one.
        ValueError: a key of the record is missing or of another type, or the content contradicts
            itself (see Pair).
    """
    missing = {"source.jpg", "target.jpg", "source_mask.png", "target_mask.png", "json"} - set(
        members
    )
    if missing:
        raise DatasetError(f"a sample lacks {', '.join(sorted(missing))}")
    record = _read_record(members["json"])

    def image(part: str) -> NDArray[np.uint8] | None:
        data = members.get(f"{part}.jpg")
        return None if data is None else read_image(data, name=part, exif=False)

    source, target = image("source"), image("target")
    assert source is not None
    assert target is not None
    size = (record["width"], record["height"])
    if source.shape[1::-1] != size:
        raise DatasetError(f"the source is {source.shape[1::-1]}, recorded as {size}")
    return Pair(
        index=record["index"],
        source=source,
        target=target,
        source_mask=read_labels(members["source_mask.png"], name="source_mask"),
        target_mask=read_labels(members["target_mask.png"], name="target_mask"),
        objects=tuple(
            PairObject(
                label=item["label"],
                target_from_source=_matrix(item["target_from_source"], number),
                category=item["category"],
                segment=item["segment"],
                blend=item["blend"],
            )
            for number, item in enumerate(record["objects"])
        ),
        background=record["background"],
        source_styled=image("source_styled"),
        target_styled=image("target_styled"),
        styles=record["styles"],
        rng=(record["rng"][0], record["rng"][1]),
    )


def _read_record(data: bytes) -> dict[str, Any]:
    """A sample's record, whose keys are there and of their types."""
    record = parse_json(data, "json")
    check_format(record, "a sample")
    checked(record, RECORD, "json")
    for number, item in enumerate(all_checked(record["objects"], OBJECT, "json: objects")):
        checked(item["segment"], ORIGIN_READ, f"json: objects[{number}].segment")
    checked(record["background"], ORIGIN_READ, "json: background")
    checked(record["styles"], dict.fromkeys(record["styles"], (dict, NONE)), "json: styles")
    if len(all_checked(record["rng"], (int,), "json: rng")) != 2:
        raise ValueError(f"json: rng has {len(record['rng'])} numbers; expected 2")
    return record


def _matrix(rows: list[Any], number: int) -> NDArray[np.float64]:
    try:
        return np.array(rows, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"json: objects[{number}].target_from_source is not 3 rows of 3 numbers ({error})"
        ) from error


@dataclass(frozen=True)
class Shard:
    """One shard of a dataset, its members found by their place in the file.

    Attributes:
        path: the tar file, or its URL.
        file: the file itself, or this machine's copy of what the URL names.
        samples: for each sample, in order, part name to (offset, bytes).
        sha256: as it is listed, "" where it is not; see `cache.local_copy`.
    """

    path: str
    file: str
    samples: tuple[dict[str, tuple[int, int]], ...]
    sha256: str = ""

    @classmethod
    def open(cls, path: PathLike, sha256: str = "") -> "Shard":
        """Read a shard's headers. What a URL names is copied to this machine whole, see
        `cache.local_copy`: its headers are strewn over the file, and its samples asked for next.

        Raises:
            DatasetError: missing, not a tar file, cut short, or holding members of other names.
            StorageError: it cannot be read from its store.
        """
        samples: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            local = cache.local_copy(path, sha256)
            with _opened(path, local, sha256) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    match = _MEMBER.fullmatch(member.name)
                    if not match or not member.isfile() or member.size > _MEMBER_LIMIT:
                        raise DatasetError(f"{path}: unexpected member {member.name!r}")
                    place = (member.offset_data, member.size)
                    samples.setdefault(match["key"], {})[match["part"]] = place
                # tarfile takes a damaged header, or none at all, for the end.
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise DatasetError(f"{path} is damaged or cut short at byte {tar.offset}")
        except FileNotFoundError as error:
            raise DatasetError(f"{path} is missing; generate the dataset again") from error
        except StorageError:
            raise
        except (tarfile.TarError, OSError) as error:
            raise DatasetError(f"{path} cannot be read as a shard: {error}") from error
        return cls(os.fspath(path), local, tuple(samples.values()), sha256)

    def members(self, position: int) -> Members:
        """The members of the sample at a position in the shard: part to content."""
        if position >= len(self.samples):
            raise DatasetError(f"{self.path} holds {len(self.samples)} pairs, none at {position}")
        members = {}
        with _opened(self.path, self.file, self.sha256) as file:
            for part, (offset, size) in self.samples[position].items():
                file.seek(offset)
                members[part] = file.read(size)
        return members

    def read(self, position: int, choose: Callable[[Members], Members] | None = None) -> Pair:
        """Decode the sample at a position in the shard.

        Args:
            choose: given the members, returns those to decode; by default all of them.
        """
        members = self.members(position)
        try:
            return decode_pair(choose(members) if choose else members)
        except ValueError as error:
            raise DatasetError(f"{self.path}, sample {position}: {error}") from error


def _opened(path: PathLike, local: str, sha256: str) -> BinaryIO:
    """A shard's file, open for reading.

    Args:
        local: the file, or this machine's copy of it, which another process that needs the room may
            remove at any time: then there is a new one.
    """
    try:
        return open(local, "rb")
    except FileNotFoundError:
        return open(cache.local_copy(path, sha256), "rb")


def listed_shard(path: str, pairs: int, length: int, sha256: str) -> Shard:
    """Open a shard that is to be as a manifest lists it; all of it is read once.

    Args:
        path: its file or URL.
        pairs, length, sha256: as listed, the length in bytes.

    Raises:
        DatasetError: it is missing, damaged, or another one than is listed.
        StorageError: it cannot be read from its store.
    """
    shard = Shard.open(path, sha256)
    with _opened(path, shard.file, sha256) as file:
        found = len(shard.samples), file.seek(0, os.SEEK_END)
        file.seek(0)
        digest = content_hash(file)
    if found != (pairs, length):
        raise DatasetError(
            f"{path} holds {found[0]} pairs in {found[1]} bytes, listed with {pairs} in {length}; "
            "generate the dataset again"
        )
    if digest != sha256:
        raise DatasetError(
            f"{path} is damaged: its SHA-256 is {digest[:8]}..., listed as {sha256[:8]}...; "
            "generate the dataset again"
        )
    return shard


def read_pairs(dataset: PathLike, split: str) -> Iterator[Pair]:
    """All pairs of a split in order.

    Raises:
        DatasetError: of `split_shards` and `listed_shard`, or a sample is damaged.
    """
    for entry in split_shards(dataset, split):
        path = storage.join(dataset, entry["name"])
        shard = listed_shard(path, entry["pairs"], entry["bytes"], entry["sha256"])
        for position in range(len(shard.samples)):
            yield shard.read(position)
