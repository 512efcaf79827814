"""Prediction: one image pair's answer of any method, at any resolution, and its file."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from segswap import geometry
from segswap.drawing.draw import draw_match, spread_points

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What a method says of a pair, on a grid of cells of each image.

    Attributes:
        to_target: float32 (h, w, 2), for each source cell's centre the normalised (x, y) in the
            target; NaN where the method has no answer.
        to_source: float32 (h', w', 2), the same for target cells.
        source_mask: float32 (H, W) in [0, 1], probability of belonging to the shared region; on the
            grid of the positions or a finer one.
        target_mask: float32 (H', W').
        source_same: float32 (h, w) in [0, 1], for each source cell the probability that both images
            show the very same thing there, not another one of its kind; None where the method does
            not tell the two apart, and takes all in the masks for the same.
        target_same: float32 (h', w'), or None.
    """

    to_target: Array
    to_source: Array
    source_mask: Array
    target_mask: Array
    source_same: Array | None = None
    target_same: Array | None = None

    def points(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Normalised target positions (N, 2) of normalised source points (N, 2)."""
        return warp_points(self.to_target, _checked(xy))

    def points_back(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Normalised source positions (N, 2) of normalised target points (N, 2)."""
        return warp_points(self.to_source, _checked(xy))

    def confidence(self, xy: ArrayLike) -> NDArray[np.float64]:
        """The probability (N,) that both images show the very same thing at source points (N, 2),
        normalised; where the method does not tell, that of the mask.
        """
        told = self.source_mask if self.source_same is None else self.source_same
        return geometry.sample(told, _checked(xy))

    def on_cells(self) -> "Prediction":
        """The same with the masks on the grids of the positions: means where they are finer."""
        masks = (
            mask if mask.shape == grid else geometry.cell_means(mask, *grid)
            for mask, grid in (
                (self.source_mask, self.to_target.shape[:2]),
                (self.target_mask, self.to_source.shape[:2]),
            )
        )
        return replace(self, source_mask=next(masks), target_mask=next(masks))

    def reversed(self) -> "Prediction":
        """The same with source and target exchanged."""
        return Prediction(
            self.to_source,
            self.to_target,
            self.target_mask,
            self.source_mask,
            self.target_same,
            self.source_same,
        )

    def of_things(self) -> "Prediction":
        """The same with masks of the very same thing, instead of all things of one kind."""
        if self.source_same is None or self.target_same is None:
            return self
        return replace(self, source_mask=self.source_same, target_mask=self.target_same)

    def draw(
        self, source: NDArray[np.uint8], target: NDArray[np.uint8], *, points: int = 14,
        height: int = 320,
    ) -> NDArray[np.uint8]:  # fmt: skip
        """The match as a picture: see `draw_match`.

        The points are spread over the predicted source mask; with an empty mask none is drawn.

        Args:
            source, target: the images, uint8 (H, W, 3) RGB of any sizes.
            points: how many points to join at most.
            height: of the picture in pixels.
        """
        source_mask, target_mask = (
            enlarge(mask, image.shape[1], image.shape[0]) > 0.5
            for mask, image in ((self.source_mask, source), (self.target_mask, target))
        )
        start = spread_points(source_mask, points)
        end = self.points(start)
        return draw_match(source, target, source_mask, target_mask, start, end, height=height)

    def save(self, path: Path) -> None:
        """Write the arrays as an .npz file."""
        np.savez(path, **{name: array for name, array in vars(self).items() if array is not None})

    @classmethod
    def load(cls, path: Path) -> "Prediction":
        """Read what `save` wrote.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                unknown = sorted(set(arrays) - cls.__dataclass_fields__.keys())
                if unknown:
                    raise ValueError(f"it has an array {unknown[0]}")
                read = cls(**arrays)
            for positions, mask in (
                (read.to_target, read.source_mask), (read.to_source, read.target_mask)
            ):  # fmt: skip
                if mask.ndim != 2 or positions.ndim != 3 or positions.shape[2] != 2:
                    raise ValueError(f"positions {positions.shape} with a mask {mask.shape}")
            for name, array in vars(read).items():
                if array is not None and (array.dtype.kind != "f" or not array.size):
                    raise ValueError(f"{name} is {array.dtype} {array.shape}, no numbers")
        except Exception as error:  # unzipping and parsing raise many kinds
            raise ValueError(f"{path} cannot be read as a prediction: {error}") from error
        return read


def _checked(xy: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(xy, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"expected points of shape (N, 2), got {points.shape}")
    return points


def warp_points(positions: NDArray[np.floating], points: ArrayLike) -> NDArray[np.float64]:
    """Where a grid of positions (h, w, 2) takes points (..., 2): float64 of the points' shape.

    A point moves by the bilinear value of the cells' displacements, position minus own centre, with
    the border of `geometry.sample`: identity and translations are exact up to the frame and beyond.

    Args:
        positions: normalised, of each cell's centre in the other image.
        points: normalised, x then y.

    Returns:
        Normalised points of the other image; NaN where one of the four cells around a point has no
        answer.
    """
    displacements = positions - geometry.cell_centres(*positions.shape[:2])
    return np.asarray(points, np.float64) + geometry.sample(displacements, points)


def cycle_offsets(
    there: NDArray[np.floating], back: NDArray[np.floating], points: ArrayLike | None = None
) -> NDArray[np.float64]:
    """How far from its start the way there and back brings each point: float64 (..., 2).

    Args:
        there: (h, w, 2), normalised, of each cell's centre in the other image.
        back: (h', w', 2), the other image's, in this one.
        points: (..., 2), normalised, to start from; by default the centres of the cells of `there`.

    Returns:
        End minus start, in cells of `there`, x then y; NaN where the way there or the way back has
        no answer, or the way there leaves the other image.
    """
    rows, columns = there.shape[:2]
    if points is None:
        start, end = geometry.cell_centres(rows, columns), there
    else:
        start, end = np.asarray(points, np.float64), warp_points(there, points)
    landed = np.where(geometry.inside(end)[..., None], end, np.nan)
    return (warp_points(back, landed) - start) * (columns, rows)


def enlarge(mask: Array, width: int, height: int) -> Array:
    """A mask on a grid (h, w) at an image's size: float32 (height, width) in [0, 1].

    Bilinear values at the pixels' centres, as of `geometry.sample`, also where a side shrinks.
    """
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
