"""What a model says of two images, in their pixels: masks, matches, a homography, a picture."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segswap import geometry
from segswap.drawing.draw import draw_match
from segswap.fitting.ransac import homography_by_magsac
from segswap.models.prediction import Prediction, cycle_offsets

_RETURN = 1.0  # how far from its start, in cells, a match's way there and back may end
_SHARE = 0.005  # of the target's longer side: how far off a match of a homography may be
_MOST_CANDIDATES = 100_000  # looked at in the box around a mask: some 30 ms


@dataclass(frozen=True)
class Correspondences:
    """Points of two images that belong together, as OpenCV takes them: float64 each.

    Attributes:
        source: (N, 2) in pixels of the source, x then y; the centre of the upper left pixel is at
            (0, 0).
        target: (N, 2) in pixels of the target.
        confidence: (N,) in [0, 1], that both are the same point of the very same thing.
    """

    source: NDArray[np.float64]
    target: NDArray[np.float64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.source)


@dataclass(frozen=True)
class Match:
    """What a model says of two images.

    Attributes:
        source_mask: float32 (H, W) in [0, 1] at the source's size, the probability of belonging
            to the region that both images show.
        target_mask: the same at the target's size.
        score: how much the images share: S(s, t) of `segswap.models.score`, in cells.
        prediction: masks and positions on the model's grid.
        source_image: uint8 (H, W, 3), the image that was matched, not a copy of it.
        target_image: the same of the target.
    """

    source_mask: NDArray[np.float32]
    target_mask: NDArray[np.float32]
    score: float
    prediction: Prediction
    source_image: NDArray[np.uint8] = field(repr=False)
    target_image: NDArray[np.uint8] = field(repr=False)

    def points(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Where source points lie in the target: (N, 2) of (N, 2), normalised, x then y.

        (0, 0) is the upper left corner of an image, (1, 1) the lower right one. Every point gets an
        answer; it means something where the source's mask is high.

        Raises:
            ValueError: the points are not of shape (N, 2).
        """
        return self.prediction.points(xy)

    def points_back(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Where target points lie in the source; see `points`."""
        return self.prediction.points_back(xy)

    def confidence(self, xy: ArrayLike) -> NDArray[np.float64]:
        """How sure it is that the target shows the very same thing as the source does at source
        points, and not another one of its kind: (N,) in [0, 1] of (N, 2), normalised. 0 where the
        answer lies outside the target, or there is none.

        Raises:
            ValueError: the points are not of shape (N, 2).
        """
        there = geometry.inside(self.points(xy))
        return np.where(there, self.prediction.confidence(xy), 0.0)

    def matches(self, count: int = 1000) -> Correspondences:
        """Points that belong together, in pixels of both images, spread evenly over what is shared.

        The source's point lies in the source's mask and the target's in the target's (above 0.5),
        and the way there and back ends within a cell of where it began. Confidence is the
        probability that the point shows the very same thing in both images, the lower one of the
        two that the images tell, times the agreement of the ways there and back, which is 1 where
        they meet and falls to 0 at a cell. Two things of one kind have matches too, of low
        confidence. Also the first few are spread over all; the same count gives the same matches.

        Args:
            count: how many at most. There are fewer where little is shared, and never more than
                the mask has pixels.

        Raises:
            ValueError: count is negative.
        """
        if count < 0:
            raise ValueError(f"count is {count}; expected the number of matches, 0 or more")
        p = self.prediction
        count = min(count, int(np.count_nonzero(self.source_mask > 0.5)))
        start = _candidates(p.source_mask > 0.5, count)
        start = start[geometry.sample(p.source_mask, start) > 0.5]
        end = p.points(start)
        off = np.linalg.norm(cycle_offsets(p.to_target, p.to_source, start), axis=1)
        # A comparison with NaN, where either way has no answer, is False.
        kept = np.nonzero((off <= _RETURN) & (geometry.sample(p.target_mask, end) > 0.5))[0][:count]
        start, end, off = start[kept], end[kept], off[kept]
        same = np.minimum(p.confidence(start), p.reversed().confidence(end))
        return Correspondences(
            geometry.to_pixels(start, *_size(self.source_mask)),
            geometry.to_pixels(end, *_size(self.target_mask)),
            same * (1 - off / _RETURN),
        )

    def homography(
        self, count: int = 1000, threshold: float | None = None
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
        """The homography that most of the matches agree with, and which of them do.

        Args:
            count: of the matches that it is fitted to, see `matches`.
            threshold: how far off a match that agrees may be, in pixels of the target; by default
                0.5% of the target's longer side.

        Returns:
            3x3, from source pixels to target pixels, as `cv2.warpPerspective` takes it, and bool
            (N,), the inliers among `matches(count)`. None, and no inlier, where there are fewer
            than four matches or no homography fits four of them. Chance gives a homography too,
            with few inliers, and so do two things of one kind, with matches of low confidence.

        Raises:
            ValueError: count is negative, or the threshold not above 0.
        """
        found = self.matches(count)
        within = _SHARE * max(self.target_mask.shape) if threshold is None else threshold
        return homography_by_magsac(found.source, found.target, within)

    def draw(self, *, points: int = 14, height: int = 320) -> NDArray[np.uint8]:
        """The match as a picture, uint8 (H, W, 3): both images, what is not shared darkened, some
        `matches` joined.

        Args:
            points: how many to join at most.
            height: of the picture in pixels.

        Raises:
            ValueError: points is negative.
        """
        shown, masks = self.matches(points), (self.source_mask > 0.5, self.target_mask > 0.5)
        start, end = (
            geometry.to_normalised(found, *_size(mask))
            for found, mask in zip((shown.source, shown.target), masks, strict=True)
        )
        return draw_match(self.source_image, self.target_image, *masks, start, end, height=height)


def _size(mask: NDArray) -> tuple[int, int]:
    """Width and height."""
    return mask.shape[1], mask.shape[0]


def _candidates(mask: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    """Normalised points (N, 2) spread evenly over a box that holds a mask (h, w) on a grid, so many
    that several times the count lie in the mask.
    """
    left, top, right, bottom = geometry.window_of(mask)
    share = np.count_nonzero(mask) / max((right - left) * (bottom - top), 1)
    needed = min(4096 + 8 * count / max(share, 1e-9), _MOST_CANDIDATES)
    # Between two cells, a mask reaches half a cell beyond those that it holds.
    low = np.maximum(np.array([left, top]) - 0.5, 0) / _size(mask)
    high = np.minimum(np.array([right, bottom]) + 0.5, _size(mask)) / _size(mask)
    return low + geometry.even_points(int(needed)) * (high - low)
