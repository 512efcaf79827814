"""Index: the images and segments of a job, as arrays on disk that all workers map into memory."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from generators.sources.licences import NOT_STATED, Licence
from segswap.files import cache, storage
from segswap.files.arrays import map_array
from segswap.files.records import read_record
from segswap.files.storage import PathLike

UNKNOWN = -1  # the category of a segment that has none
_NO_ID = np.iinfo(np.int64).min  # the annotation of a segment whose dataset gives it no id


@dataclass(frozen=True)
class Segment:
    """One segment of one image.

    Attributes:
        image: position of its image in the index.
        category: position of its category in the index, or UNKNOWN.
        annotation: its id in the dataset it comes from, which need not be its alone; None where it
            has none.
        counts: its mask, as COCO's compressed run lengths at the image's own size.
        score: how sure its proposer was of it, from 0 to 1; 1 where people drew it.
    """

    image: int
    category: int
    annotation: int | None
    counts: bytes
    score: float = 1.0


@dataclass(frozen=True)
class Index:
    """Images with the categories that they show, and the segments that may be copied.

    Attributes:
        header: dataset (its name), root (the images' folder), proposer, proposals (its fingerprint,
            where there is one), categories (names),
            fingerprint, filtered (count of segments by reason), left_out (count of images by
            reason), corrected (count of what was not as it should be, and was used), licences (name
            and address of each).
        arrays: sizes (N, 2) width and height; names and name_ends, credits and credit_ends, blobs
            of text; licences (N,), positions in the header's;
            present and present_ends, the categories that each image shows;
            segments (M, 3) image, category, annotation, in the order of the images; scores (M,);
            counts and counts_ends, the masks.
    """

    header: dict[str, Any]
    arrays: dict[str, NDArray]

    def __len__(self) -> int:
        return len(self.arrays["sizes"])

    @property
    def dataset(self) -> str:
        """The dataset's name, as pairs record it."""
        return self.header["dataset"]

    @property
    def without_segments(self) -> int:
        """How many images give no segment; they are backgrounds all the same."""
        return len(self) - len(np.unique(self.arrays["segments"][:, 0]))

    def image_name(self, image: int) -> str:
        """Path of an image, relative to the folder of the images."""
        name = _part(self.arrays["names"], self.arrays["name_ends"], image).tobytes()
        return name.decode("utf-8", "surrogateescape")  # in any locale

    def image_licence(self, image: int) -> Licence:
        """An image's licence."""
        return Licence(*self.header["licences"][self.arrays["licences"][image]])

    def image_credit(self, image: int) -> str:
        """Where an image comes from, as its dataset says; "" where it does not."""
        credit = _part(self.arrays["credits"], self.arrays["credit_ends"], image)
        return credit.tobytes().decode(errors="replace")

    def images_by_licence(self) -> dict[str, int]:
        """How many images carry each licence, the most frequent first."""
        counts = np.bincount(self.arrays["licences"], minlength=len(self.header["licences"]))
        return {
            self.header["licences"][i][0]: int(counts[i])
            for i in np.argsort(-counts, kind="stable") if counts[i]
        }  # fmt: skip

    def image_path(self, image: int) -> Path | str:
        """Path of an image's file, or its URL."""
        path = storage.join(self.header["root"], self.image_name(image))
        return path if storage.is_url(path) else Path(storage.local_path(path))

    def image_size(self, image: int) -> tuple[int, int]:
        """Width and height."""
        width, height = self.arrays["sizes"][image]
        return int(width), int(height)

    def shows(self, image: int, category: int) -> bool:
        """Whether an image shows an object of a category; never for UNKNOWN."""
        return bool(np.any(_part(self.arrays["present"], self.arrays["present_ends"], image)
                           == category)) and category != UNKNOWN  # fmt: skip

    def category_name(self, category: int) -> str | None:
        """A category's name, None for UNKNOWN."""
        return None if category == UNKNOWN else self.header["categories"][category]

    def segment(self, number: int) -> Segment:
        """The segment at a position."""
        image, category, annotation = (int(v) for v in self.arrays["segments"][number])
        counts = _part(self.arrays["counts"], self.arrays["counts_ends"], number).tobytes()
        score = float(self.arrays["scores"][number])
        own = None if annotation == _NO_ID else annotation
        return Segment(image, category, own, counts, score)

    def mask(self, segment: Segment) -> NDArray[np.bool_]:
        """A segment's mask at its image's own size: bool (H, W)."""
        width, height = self.image_size(segment.image)
        columns = rle.decode({"size": [height, width], "counts": segment.counts}).T
        return cv2.transpose(columns).view(bool)  # in C order, which OpenCV needs not copy

    def save(self, folder: PathLike) -> None:
        """Write the index into a new folder, or below a URL."""
        storage.make_folder(folder)
        for name, array in self.arrays.items():
            with storage.replacing(storage.join(folder, f"{name}.npy")) as file:
                np.save(file, array)
        header = json.dumps(self.header).encode()
        storage.write_atomically(storage.join(folder, "header.json"), header)

    @classmethod
    def load(cls, folder: PathLike) -> "Index":
        """Map a saved index into memory; processes that load it share its pages.

        One below a URL is copied to each machine once; `cache.forget_copies` removes the copy.

        Raises:
            ValueError: a file of it is damaged.
        """
        arrays = {}
        for name in storage.entries(folder):
            if name.endswith(".npy"):
                file = cache.local_copy(storage.join(folder, name))
                arrays[name[:-4]] = map_array(file, "fiu")
        return cls(read_record(storage.join(folder, "header.json"), {}), arrays)


def build(
    *,
    dataset: str,
    root: str,
    proposer: str,
    categories: Sequence[str],
    images: Sequence[tuple[str, int, int]],
    present: Sequence[Iterable[int]],
    segments: Iterable[Segment],
    filtered: dict[str, int],
    left_out: dict[str, int] | None = None,
    corrected: dict[str, int] | None = None,
    licences: Sequence[Licence] | None = None,
    credits: Sequence[str] | None = None,
    proposals: str | None = None,
) -> Index:
    """An index in memory from its parts; images are (name, width, height).

    `licences` and `credits` are the images', in their order; by default nothing is stated.
    """
    ordered = sorted(segments, key=_place)
    names = [storage.name_bytes(name) for name, _, _ in images]
    licences = licences if licences is not None else [NOT_STATED] * len(images)
    distinct = sorted(set(licences))
    place = {licence: position for position, licence in enumerate(distinct)}
    told = [credit.encode(errors="backslashreplace") for credit in credits or [""] * len(images)]
    shown = [sorted(set(categories_shown)) for categories_shown in present]
    arrays: dict[str, NDArray] = {
        "sizes": np.array([(w, h) for _, w, h in images], np.int32).reshape(-1, 2),
        "names": np.frombuffer(b"".join(names), np.uint8),
        "name_ends": _ends(map(len, names)),
        "licences": np.array([place[licence] for licence in licences], np.int32),
        "credits": np.frombuffer(b"".join(told), np.uint8),
        "credit_ends": _ends(map(len, told)),
        "present": np.array([c for row in shown for c in row], np.int32),
        "present_ends": _ends(map(len, shown)),
        "segments": np.array(
            [(s.image, s.category, _place(s)[1]) for s in ordered], np.int64
        ).reshape(-1, 3),
        "scores": np.array([s.score for s in ordered], np.float32),
        "counts": np.frombuffer(b"".join(s.counts for s in ordered), np.uint8),
        "counts_ends": _ends(len(s.counts) for s in ordered),
    }
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    header = {
        "dataset": dataset, "root": root, "proposer": proposer, "proposals": proposals,
        "categories": list(categories), "filtered": filtered, "left_out": left_out or {},
        "corrected": corrected or {},
        "licences": [list(licence) for licence in distinct],
        "fingerprint": digest.hexdigest(),
    }  # fmt: skip
    return Index(header, arrays)


def _place(segment: Segment) -> tuple[int, int, int, bytes]:
    """What the order of segments follows; ids need not tell them apart."""
    own = _NO_ID if segment.annotation is None else segment.annotation
    return segment.image, int(own), segment.category, segment.counts


def _ends(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.cumsum(np.fromiter(lengths, np.int64), dtype=np.int64)


def _part(values: NDArray, ends: NDArray, position: int) -> NDArray:
    start = ends[position - 1] if position else 0
    return values[start : ends[position]]


@dataclass(frozen=True)
class Pool:
    """The part of an index that one split draws from.

    Attributes:
        index: the whole index.
        images: positions of the split's images.
        segments: positions of their segments, ordered by category.
        category_ends: where each category's run in `segments` ends.
        backgrounds: the index that backgrounds come from.
        background_images: positions of the split's backgrounds in it.
    """

    index: Index
    images: NDArray[np.int64]
    segments: NDArray[np.int64]
    category_ends: NDArray[np.int64]
    backgrounds: Index
    background_images: NDArray[np.int64]

    @classmethod
    def of(
        cls, index: Index, images: NDArray[np.int64], backgrounds: Index, behind: NDArray[np.int64]
    ) -> "Pool":
        """The pool of the images at the given positions, with the given backgrounds."""
        chosen = np.flatnonzero(np.isin(index.arrays["segments"][:, 0], images))
        categories = index.arrays["segments"][chosen, 1]
        order = np.argsort(categories, kind="stable")
        _, lengths = np.unique(categories, return_counts=True)
        return cls(
            index, images, chosen[order], np.cumsum(lengths, dtype=np.int64), backgrounds, behind
        )

    @classmethod
    def whole(cls, index: Index) -> "Pool":
        """The pool of all images of an index, each of them a background as well."""
        everything = np.arange(len(index))
        return cls.of(index, everything, index, everything)

    def draw_segment(self, rng: np.random.Generator) -> Segment:
        """A segment: its category first, then one of that category's, both uniformly."""
        category = int(rng.integers(len(self.category_ends)))
        members = _part(self.segments, self.category_ends, category)
        return self.index.segment(int(members[rng.integers(len(members))]))

    def others(self, segment: Segment) -> list[Segment]:
        """The image's segments of other categories; where none is known, its other segments."""
        numbers = np.searchsorted(
            self.index.arrays["segments"][:, 0], [segment.image, segment.image + 1]
        )
        return [
            other
            for other in map(self.index.segment, range(*numbers))
            if other != segment
            and (other.category != segment.category or segment.category == UNKNOWN)
        ]

    def several(self) -> bool:
        """Whether some image of the pool holds segments of two different categories."""
        owners = self.index.arrays["segments"][self.segments]
        known = np.unique(owners[:, :2], axis=0)[:, 0]
        unknown = owners[owners[:, 1] == UNKNOWN, 0]
        return any(len(v) > len(np.unique(v)) for v in (known, unknown))


def held_out(index: Index, share: float) -> NDArray[np.bool_]:
    """Which images belong to the val split when both splits are made: bool (N,).

    The images whose names have the smallest SHA-256: no matter in which order or with which other
    images a name comes, its place hardly changes.
    """
    names = map(index.image_name, range(len(index)))
    digests = [hashlib.sha256(storage.name_bytes(name)).digest() for name in names]
    order = sorted(range(len(index)), key=lambda i: digests[i])
    chosen = np.zeros(len(index), bool)
    chosen[order[: max(2, round(share * len(index)))]] = True
    return chosen
