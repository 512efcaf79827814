"""Pair: two images that share regions, and where each region's points lie in both."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segswap import geometry

FORMAT = 1


@dataclass(frozen=True)
class PairObject:
    """One region that both images of a pair show.

    Attributes:
        label: its value in both masks, 1 to 255.
        target_from_source: float64 (3, 3), normalised target from normalised source coordinates.
        category: the segment's category name, None where unknown.
        segment: where it comes from: dataset, image, sha256 of the image's file, annotation,
            proposer; see `image_key`.
        blend: how it was put into the target.
    """

    label: int
    target_from_source: NDArray[np.float64]
    category: str | None
    segment: dict[str, Any]
    blend: str


@dataclass(frozen=True)
class Pair:
    """A source image, a target image, and their ground truth; all images have one size.

    Attributes:
        index: position in the split; names the sample in a shard.
        source, target: uint8 (H, W, 3) RGB.
        source_mask, target_mask: uint8 (H, W) label maps; 0 is background, k the object k.
        objects: the shared regions; their labels are those of the masks.
        background: dataset, image and sha256 of what the objects were put into.
        source_styled, target_styled: the same images in another style, or None.
        styles: for "source" and "target" how they were styled, or None.
        rng: what seeds the pair's random generator, after the run's seed: split and index.
    """

    index: int
    source: NDArray[np.uint8]
    target: NDArray[np.uint8]
    source_mask: NDArray[np.uint8]
    target_mask: NDArray[np.uint8]
    objects: tuple[PairObject, ...]
    background: dict[str, Any] = field(default_factory=dict)
    source_styled: NDArray[np.uint8] | None = None
    target_styled: NDArray[np.uint8] | None = None
    styles: dict[str, Any] = field(default_factory=lambda: {"source": None, "target": None})
    rng: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        size = self.source.shape[:2]
        for name in ("source", "target", "source_styled", "target_styled"):
            image = getattr(self, name)
            if image is not None and (image.shape != (*size, 3) or image.dtype != np.uint8):
                raise ValueError(
                    f"pair {self.index}: {name} is {image.dtype} {image.shape}, "
                    f"expected uint8 {(*size, 3)}"
                )
        labels = [item.label for item in self.objects]
        if len(set(labels)) != len(labels) or not all(1 <= label <= 255 for label in labels):
            raise ValueError(f"pair {self.index}: labels {labels}, expected distinct, 1 to 255")
        for name in ("source_mask", "target_mask"):
            mask = getattr(self, name)
            if mask.shape != size or mask.dtype != np.uint8:
                raise ValueError(
                    f"pair {self.index}: {name} is {mask.dtype} {mask.shape}, expected uint8 {size}"
                )
            # Labels mostly run from 1 without gaps: then the mask's largest value tells all, fast.
            largest = max(labels, default=0)
            if mask.max() > largest or largest != len(labels):
                found = sorted(set(np.unique(mask).tolist()) - {0, *labels})
                if found:
                    raise ValueError(f"pair {self.index}: {name} holds labels {found} of no object")
        for item in self.objects:
            m = item.target_from_source
            if m.shape != (3, 3) or not np.isfinite(m).all() or abs(np.linalg.det(m)) < 1e-12:
                raise ValueError(
                    f"pair {self.index}: object {item.label}'s target_from_source must be an "
                    f"invertible 3x3 matrix, not {m.tolist()}"
                )

    @property
    def height(self) -> int:
        """Rows of every image of the pair."""
        return self.source.shape[0]

    @property
    def width(self) -> int:
        """Columns of every image of the pair."""
        return self.source.shape[1]

    def to_target(self, points: NDArray, label: int) -> NDArray[np.float64]:
        """Where normalised source points (..., 2) of one object lie in the target."""
        return geometry.transform_points(self._matrix(label), points)

    def to_source(self, points: NDArray, label: int) -> NDArray[np.float64]:
        """Where normalised target points (..., 2) of one object lie in the source."""
        return geometry.transform_points(np.linalg.inv(self._matrix(label)), points)

    def _matrix(self, label: int) -> NDArray[np.float64]:
        for item in self.objects:
            if item.label == label:
                return item.target_from_source
        raise ValueError(f"pair {self.index} has no object {label}")


def image_key(origin: dict[str, Any]) -> str | None:
    """Which photograph a segment or a background is of: the same key for the same photograph.

    The SHA-256 of its file where that is recorded, so that neither its name nor its folder counts;
    else dataset and image. A photograph that one record hashes and the other does not has two keys.

    Args:
        origin: `PairObject.segment` or `Pair.background`.

    Returns:
        None where nothing is recorded.
    """
    if sha256 := origin.get("sha256"):
        return str(sha256)
    return f"{origin.get('dataset')}/{origin['image']}" if origin.get("image") else None


def shown_images(pair: Pair) -> tuple[set[str], set[str]]:
    """The keys of the photographs that source and target show, as far as they are recorded.

    The source shows those of its segments; the target these and its background.
    """
    source = {key for item in pair.objects if (key := image_key(item.segment))}
    behind = image_key(pair.background)
    return source, source | ({behind} if behind else set())


def share_nothing(source: Pair, target: Pair) -> bool:
    """Whether one pair's source and another's target come from different photographs, by what is
    recorded of them.
    """
    return source is not target and not shown_images(source)[0] & shown_images(target)[1]
