"""Pictures and what is known of them: kinds of things, masks, keypoints."""

import hashlib
import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from segswap.data.segmentations import encode_segmentation
from segswap.files.images import read_image, read_label_map
from segswap.files.located import check_frame

Points = NDArray[np.float32]
Mask = NDArray[np.bool_]
_SIDES = (("left_", "right_"), ("right_", "left_"))


@dataclass
class Picture:
    """A picture and what is known of it.

    Attributes:
        path: of its file.
        key: SHA-256 of the file's content, by which the same picture in two places is one.
        labels: int8 (C,), for each kind 1 where it is in the picture, 0 where it is not, -1 where
            nobody knows.
        masks: for a kind's number, where its mask comes from: a file, or COCO's segmentations.
        crowds: for a kind's number, COCO's segmentations of areas in which somewhere are more.
        points: for a kind's number float32 (K, 2), normalised keypoints; NaN where one is not seen.
        boxes: for a kind's number float32 (4,), the normalised box of the thing that its keypoints
            are of: left, top, right, bottom.
        size: width and height of the frame in which it was annotated; None for that in which it
            stands upright.
    """

    path: str
    key: str
    labels: NDArray[np.int8]
    masks: dict[int, Any] = field(default_factory=dict)
    crowds: dict[int, list[Any]] = field(default_factory=dict)
    points: dict[int, Points] = field(default_factory=dict)
    boxes: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    def read(self) -> NDArray[np.uint8]:
        """Its pixels, in the frame in which it was annotated: RGB, uint8 (H, W, 3).

        Raises:
            ImageError: it cannot be read, or is of another size than was annotated.
        """
        image = read_image(self.path, exif=self.size or True)
        if self.size:
            check_frame(self.path, (image.shape[1], image.shape[0]), self.size)
        return image

    def mask(self, kind: int, shape: tuple[int, int]) -> Mask | None:
        """Where the picture, of so many rows and columns, shows a kind: bool (H, W); None where
        that is not known.

        Raises:
            ImageError: the mask's file cannot be read.
            ValueError: the mask is of another size, or a segmentation is malformed.
        """
        if kind not in self.masks:
            return None
        told = self.masks[kind]
        mask = self._union(told, *shape) if isinstance(told, list) else read_label_map(told) > 0
        if mask.shape != shape:
            raise ValueError(
                f"{told} is {mask.shape[1]} x {mask.shape[0]} px, {self.path} {shape[1]} x "
                f"{shape[0]}; expected masks of their pictures' sizes"
            )
        return mask

    def unknown(self, kind: int, mask: Mask) -> Mask | None:
        """Of what its mask (H, W) of a kind leaves out, where nobody knows; None for nowhere."""
        if kind not in self.crowds:
            return None
        height, width = mask.shape
        return self._union(self.crowds[kind], height, width) & ~mask

    def _union(self, segmentations: list[Any], height: int, width: int) -> Mask:
        """All of COCO's segmentations, polygons or run lengths, as one mask."""
        try:
            parts = [encode_segmentation(one, width, height).counts for one in segmentations]
        except ValueError as error:
            raise ValueError(f"an annotation of {self.path} cannot be used: {error}") from error
        if not parts:
            return np.zeros((height, width), bool)
        merged = rle.merge([{"size": [height, width], "counts": counts} for counts in parts])
        return rle.decode(merged).astype(bool)

    def shows_points(self, kind: int) -> bool:
        """Whether any keypoint of a kind is seen."""
        return kind in self.points and bool(np.isfinite(self.points[kind]).any())


@dataclass(frozen=True)
class Pictures:
    """Pictures of a source.

    Attributes:
        source: where they come from.
        kinds: names of the kinds of things.
        keypoints: names of the keypoints.
        pictures: to train on, each with its labels in the order of `kinds`.
        held_out: to score on.
    """

    source: str
    kinds: tuple[str, ...]
    keypoints: tuple[str, ...]
    pictures: tuple[Picture, ...]
    held_out: tuple[Picture, ...] = ()

    @cached_property
    def truth(self) -> frozenset[str]:
        """What is known of pairs of them, of masks and keypoints if of any: see `Batch.truth`."""
        known = {"pair", "label"}
        if any(picture.masks for picture in self.pictures):
            known.add("mask")
        if self.keypoints:
            known.add("keypoints")
        return frozenset(known)

    @cached_property
    def mirrored_keypoints(self) -> NDArray[np.intp]:
        """Number of the keypoint that each one is in a mirror: left and right change places."""
        numbers = {name: number for number, name in enumerate(self.keypoints)}
        found = []
        for number, name in enumerate(self.keypoints):
            swapped = [name.replace(own, other, 1) for own, other in _SIDES if own in name]
            found.append(numbers.get(swapped[0], number) if swapped else number)
        return np.array(found, np.intp)

    def check_pairs(self, held_out: int) -> None:
        """Refuse pictures of which no two show the same kind.

        Args:
            held_out: how many further ones are not trained on.

        Raises:
            ValueError: there are no two.
        """
        labels = [picture.labels == 1 for picture in self.pictures]
        if not labels or not (np.sum(labels, axis=0) > 1).any():
            beside = f", beside {held_out} held out," if held_out else ""
            raise ValueError(
                f"{self.source} holds {len(labels)} pictures{beside} of {len(self.kinds)} kinds, "
                "and no two of one kind; expected a folder for each kind with two pictures or "
                "more, or ANNOTATIONS.json:IMAGES"
            )


def merged(sources: Sequence[Pictures], held_out: Set[str] = frozenset()) -> tuple[Pictures, ...]:
    """Sources with the same kinds and keypoints in the same order, those of one name being one.

    Kinds may be written in capitals or not. A source says nothing of kinds that only others have.
    What one of them holds out is trained on in none.

    Args:
        held_out: content of further pictures that are not trained on.

    Raises:
        ValueError: what is left of a source holds no pair.
    """
    kinds: dict[str, str] = {}
    for source in sources:
        for name in source.kinds:
            kinds.setdefault(name.casefold(), name)
    numbers = {name: number for number, name in enumerate(kinds)}
    keypoints = tuple(dict.fromkeys(name for source in sources for name in source.keypoints))
    held_out = held_out | {picture.key for source in sources for picture in source.held_out}
    found = []
    for source in sources:
        kind_at = [numbers[name.casefold()] for name in source.kinds]
        point_at = [keypoints.index(name) for name in source.keypoints]
        kept = [picture for picture in source.pictures if picture.key not in held_out]
        trained, scored = (
            tuple(_renumbered(p, kind_at, len(kinds), point_at, len(keypoints)) for p in pictures)
            for pictures in (kept, source.held_out)
        )
        found.append(Pictures(source.source, tuple(kinds.values()), keypoints, trained, scored))
        found[-1].check_pairs(len(source.pictures) - len(kept) + len(scored))
    return tuple(found)


def _renumbered(
    picture: Picture, kind_at: list[int], kinds: int, point_at: list[int], keypoints: int
) -> Picture:
    """A picture whose kinds and keypoints have other numbers, among more of them."""
    labels = np.full(kinds, -1, np.int8)
    labels[kind_at] = picture.labels
    points = {}
    for kind, own in picture.points.items():
        points[kind_at[kind]] = np.full((keypoints, 2), np.nan, np.float32)
        points[kind_at[kind]][point_at] = own
    moved: dict[str, Any] = {
        name: {kind_at[kind]: told for kind, told in getattr(picture, name).items()}
        for name in ("masks", "crowds", "boxes")
    }
    return replace(picture, labels=labels, points=points, **moved)


def pictures_hash(pictures: Pictures) -> str:
    """SHA-256 of what a source tells: its pictures by content, their kinds, whose masks and
    keypoints are known, and which pictures are held out.
    """
    told = [
        [(p.key, p.labels.tolist(), sorted(p.masks), {k: v.tolist() for k, v in p.points.items()})
         for p in part]
        for part in (pictures.pictures, pictures.held_out)
    ]  # fmt: skip
    content = [pictures.kinds, pictures.keypoints, *told]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
