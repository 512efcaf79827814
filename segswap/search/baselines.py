"""What anyone would try first to find a detail: SIFT with RANSAC, and pooled features."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.files.images import pixel_hash, read_image
from segswap.fitting.ransac import affine_by_ransac
from segswap.search.retrieval import Hit, ModelRetriever, Query

_LONGER = 1024  # px, of the longer side of images in which SIFT features are sought
_GRID = 40  # cells a side of the masks


class SiftRetriever:
    """Ranks by the inliers of one affine map between SIFT features.

    Features (Lowe, IJCV 2004) in the detail and in each image, ratio test at 0.8, affine RANSAC at
    5 px. The found box is where the map puts the detail's.

    Args:
        images: paths of the collection.

    Raises:
        ImageError: an image cannot be read.
    """

    def __init__(self, images: Sequence[str]) -> None:
        self.images = images
        self._known = [_Features(read_image(image)) for image in images]

    def search(self, query: Query, among: Sequence[int] | None = None) -> list[Hit]:
        """See `Retriever.search`."""
        own = _Features(query.image)
        left, top, right, bottom = query.outline
        inside = ((own.points >= (left, top)) & (own.points <= (right, bottom))).all(1)
        points, descriptors = own.points[inside], own.descriptors[inside]
        numbers = range(len(self.images)) if among is None else among
        hits = [
            self._hit(number, query, points, descriptors)
            for number in numbers
            if self._known[number].sha256 != own.sha256
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.number))

    def _hit(
        self, number: int, query: Query, points: NDArray[np.float32], descriptors: NDArray
    ) -> Hit:
        there = self._known[number]
        nowhere = np.zeros((0, 2), np.float32)
        found = affine_by_ransac(points, descriptors, there.points, there.descriptors)
        if found is None:
            return Hit(number, self.images[number], 0.0, None, None, nowhere, nowhere)
        matrix, starts, ends = found
        left, top, right, bottom = query.outline
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        width, height = there.size
        placed = geometry.transform_points(matrix, corners) / (width, height)
        mask = np.zeros((_GRID, _GRID), np.float32)
        cells = np.rint(geometry.to_pixels(placed, _GRID, _GRID)).clip(-1e4, 1e4)
        cv2.fillConvexPoly(mask, cells.astype(np.int32), 1.0)
        low = placed.min(0).clip(0, 1) * (width, height)
        high = placed.max(0).clip(0, 1) * (width, height)
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        kept = box if (high > low).all() else None
        return Hit(number, self.images[number], float(len(starts)), kept, mask, starts, ends)


class _Features:
    """SIFT features of an image: points (N, 2) in its pixels, with the corner at 0."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.sha256 = pixel_hash(image)
        height, width = image.shape[:2]
        self.size = (width, height)
        scale = min(1.0, _LONGER / max(width, height))
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = geometry.resize(image, *shape)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        points, descriptors = cv2.SIFT.create().detectAndCompute(grey, None)
        found = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
        self.points = (geometry.to_normalised(found, *shape) * self.size).astype(np.float32)
        self.descriptors = np.zeros((0, 128), np.float32) if descriptors is None else descriptors


class PooledRetriever:
    """Ranks by the cosine of pooled features: the first stage of a search alone. Finds no region.

    Args:
        retriever: whose model and index are used.
    """

    def __init__(self, retriever: ModelRetriever) -> None:
        self._retriever = retriever

    @property
    def images(self) -> Sequence[str]:
        """Paths of the collection."""
        return self._retriever.images

    def search(self, query: Query, among: Sequence[int] | None = None) -> list[Hit]:
        """See `Retriever.search`."""
        numbers, cosines = self._retriever.similar(query, len(self.images))
        wanted = None if among is None else set(among)
        nowhere = np.zeros((0, 2), np.float32)
        return [
            Hit(number, self.images[number], cosine, None, None, nowhere, nowhere)
            for number, cosine in zip(numbers, cosines, strict=True)
            if wanted is None or number in wanted
        ]
