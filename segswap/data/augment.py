"""Change a pair while its ground truth stays exact: mirroring, splines, crops, photometry."""

import math
import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segswap import geometry

Array = NDArray[np.float64]
Window = tuple[float, float, float, float]  # left, top, right, bottom, normalised

# Images are bent along a spline's values on a lattice of so many points a side, interpolated. The
# control grids of 4 and 6 lie on it: off it, where the kernel has its kinks, the error would be
# ten times the 0.04 px that it is at 480 px.
_LATTICE = 61
_MARGIN = 0.02  # of the frame, kept around what a crop keeps
_ENLARGED = 2.0  # the most that a crop enlarges an image's pixels
_ASPECT = 1.25  # the most by which a crop changes the ratio of an image's sides
_SELDOM = 0.08  # probability of each strong change of light
_GAMMA = 0.3, 3.0


@dataclass(frozen=True)
class Spline:
    """A thin-plate spline of the plane (Bookstein, PAMI 1989).

    Attributes:
        controls: (K, 2) control points.
        weights: (K, 2) weights of the kernel r^2 log r^2 at each control point.
        affine: (3, 2) affine part: (1, x, y) @ affine.
    """

    controls: Array
    weights: Array
    affine: Array

    @classmethod
    def through(cls, controls: Array, images: Array) -> "Spline":
        """The spline that maps each control point (K, 2) to its image (K, 2)."""
        count = len(controls)
        ones = np.column_stack([np.ones(count), controls])
        system = np.block([[_kernel(controls, controls), ones], [ones.T, np.zeros((3, 3))]])
        solution = np.linalg.solve(system, np.vstack([images, np.zeros((3, 2))]))
        return cls(controls, solution[:count], solution[count:])

    def __call__(self, points: Array) -> Array:
        """Map points (..., 2)."""
        flat = points.reshape(-1, 2)
        bent = _kernel(flat, self.controls) @ self.weights
        return (self.affine[0] + flat @ self.affine[1:] + bent).reshape(points.shape)

    def at_lattice(self) -> Array:
        """Map the points of `_lattice`."""
        bent = _lattice_kernel(self.controls.tobytes()) @ self.weights
        points = _lattice()
        return self.affine[0] + points @ self.affine[1:] + bent.reshape(points.shape)

    def inverse(self, points: Array) -> Array:
        """The points (..., 2) that the spline maps to the given ones, by Newton's method."""
        wanted = points.reshape(-1, 2)
        found = 2 * wanted - self(wanted)
        for _ in range(8):
            step = np.linalg.solve(self._jacobian(found), (self(found) - wanted)[..., None])
            found = found - step[..., 0]
            if np.abs(step).max(initial=0) < 1e-9:
                break
        return found.reshape(points.shape)

    def _jacobian(self, points: Array) -> Array:
        """Derivatives (N, 2, 2) at points (N, 2): row the output's axis, column the input's."""
        offset = points[:, None] - self.controls
        squared = np.maximum((offset**2).sum(-1), 1e-18)
        # d(r^2 log r^2) = 2 (log r^2 + 1) * offset
        slope = 2 * (np.log(squared) + 1)[..., None] * offset
        return self.affine[1:].T + np.einsum("nki,ko->noi", slope, self.weights)


def _kernel(points: Array, controls: Array) -> Array:
    squared = (points**2).sum(-1)[:, None] + (controls**2).sum(-1) - 2 * points @ controls.T
    np.maximum(squared, 1e-18, out=squared)
    return squared * np.log(squared)


@lru_cache(maxsize=1)
def _lattice() -> Array:
    line = np.linspace(0, 1, _LATTICE)
    return np.stack(np.meshgrid(line, line), axis=-1)


@lru_cache(maxsize=4)
def _lattice_kernel(controls: bytes) -> Array:
    # All random splines have one of two grids of control points: most of their time, spent once.
    return _kernel(_lattice().reshape(-1, 2), np.frombuffer(controls).reshape(-1, 2))


def random_spline(rng: np.random.Generator) -> Spline:
    """A spline of the unit square with a 4 x 4 or 6 x 6 control grid.

    As published: on [-1, 1]^2 every control point moves by uniform noise in [-0.5, 0.5] / grid
    size; here half of that, since the unit square is half as wide.
    """
    size = int(rng.choice([4, 6]))
    line = np.linspace(0, 1, size)
    controls = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    noise = rng.uniform(-0.25 / size, 0.25 / size, controls.shape)
    return Spline.through(controls, controls + noise)


def random_window(mask: NDArray[np.bool_], size: int, rng: np.random.Generator) -> Window | None:
    """A window of an image, to show at size x size, that holds all of a mask (H, W).

    Its width is between what is needed and the whole image, small ones as likely as large ones
    (log-uniform); its height likewise, within a factor 1.25. It is no smaller than leaves the
    image's pixels enlarged to at most twice their size. None for an empty mask.
    """
    height, width = mask.shape
    box = np.array(geometry.window_of(mask)) / (width, height, width, height)
    if not box.any():
        return None
    low, high = (box[:2] - _MARGIN).clip(0), (box[2:] + _MARGIN).clip(max=1)
    least = np.maximum(high - low, size / (_ENLARGED * np.array([width, height]))).clip(max=1)
    # No narrower than the least height allows.
    across = float(max(least[0], least[1] / _ASPECT) ** rng.random())
    shortest, longest = max(least[1], across / _ASPECT), min(1.0, across * _ASPECT)
    sides = np.array([across, shortest + (longest - shortest) * rng.random()])
    first, last = (high - sides).clip(0), np.minimum(low, 1 - sides)
    left, top = first + (last - first) * rng.random(2)
    right, bottom = min(left + sides[0], 1), min(top + sides[1], 1)
    return float(left), float(top), float(right), float(bottom)


@dataclass(frozen=True)
class Warp:
    """How an image is resampled: bent by a spline, mirrored left to right, cropped to a window.

    A pixel of the warped image at normalised position q shows the original at `to_original(q)`:
    the spline acts on the warped image's frame, which is then mirrored and laid on the window.

    Attributes:
        window: the part of the original that is shown at the full size; None shows all of it.
    """

    mirrored: bool = False
    spline: Spline | None = field(default=None)
    window: Window | None = None

    @property
    def matrix(self) -> Array:
        """3x3 affine part: original from warped coordinates, where there is no spline."""
        left, top, right, bottom = self.window or (0.0, 0.0, 1.0, 1.0)
        matrix = geometry.translation(left, top) @ geometry.scaling(right - left, bottom - top)
        return matrix @ geometry.mirroring() if self.mirrored else matrix

    def to_original(self, points: Array) -> Array:
        """Where warped points (..., 2) lie in the original image; exact."""
        bent = points if self.spline is None else self.spline(points)
        return geometry.transform_points(self.matrix, bent)

    def from_original(self, points: Array) -> Array:
        """Where original points (..., 2) lie in the warped image: the numerical inverse."""
        plain = geometry.transform_points(np.linalg.inv(self.matrix), points)
        return plain if self.spline is None else self.spline.inverse(plain)

    def image(self, image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """The warped image at size x size, from uint8 (H, W, 3), by one bilinear interpolation.

        Where it shrinks it is smoothed first, or, bent, sampled finer and averaged. The spline's
        positions are exact to 0.05 px of 480.
        """
        if self.spline is None:
            return geometry.warp(image, np.linalg.inv(self.matrix), size, size)
        shown = np.abs(np.diag(self.matrix)[:2]) * image.shape[1::-1]  # pixels across and down
        fine = size * max(1, math.ceil(shown.max() / size - 0.1))
        bent = cv2.remap(
            image, *self._pixels(image.shape, fine, fine), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return bent if fine == size else geometry.cell_means(bent, size, size)

    def labels(self, labels: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
        """A warped label map (rows, columns), from uint8 (H, W): nearest pixel, 0 outside."""
        return cv2.remap(labels, *self._pixels(labels.shape, rows, columns), cv2.INTER_NEAREST)

    def _pixels(
        self, shape: tuple[int, ...], rows: int, columns: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Where the warped image's pixels lie in the original of a shape (H, W, ...).

        x and y, each (rows, columns), in OpenCV's pixels.
        """
        points = _lattice() if self.spline is None else self.spline.at_lattice()
        to_pixels = geometry.pixels_from_normalised(shape[1], shape[0]) @ self.matrix
        x, y = np.moveaxis(geometry.transform_points(to_pixels, points), -1, 0).astype(np.float32)
        down, across = _interpolation(rows), _interpolation(columns)
        return down @ (across @ x.T).T, down @ (across @ y.T).T


@lru_cache(maxsize=8)
def _interpolation(size: int) -> csr_matrix:
    """From values on the lattice's line to the centres of size cells: a matrix (size, lattice).

    By cubic polynomials through the four nearest points. Sparse, it is quick on one core; dense
    products start threads, which wait for each other where loaders share the cores.
    """
    centres = geometry.axis_centres(size) * (_LATTICE - 1)
    first = np.floor(centres).astype(np.int64).clip(1, _LATTICE - 3) - 1
    a, b, c, d = (centres - first - node for node in range(4))
    weights = np.stack([-b * c * d / 6, a * c * d / 2, -a * b * d / 2, a * b * c / 6], axis=-1)
    rows, columns = np.repeat(np.arange(size), 4), first[:, None] + np.arange(4)
    places = rows, columns.ravel()
    return csr_matrix((weights.ravel().astype(np.float32), places), (size, _LATTICE))


@lru_cache(maxsize=1)
def _photometric() -> Any:
    # Without this albumentations asks the network for a newer version when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations.Compose(
        [
            albumentations.ColorJitter(
                brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.6, 1.4), hue=(-0.1, 0.1),
                p=0.8,
            ),
            albumentations.ToGray(p=0.1),
            albumentations.GaussianBlur(blur_limit=(3, 5), p=0.2),
            albumentations.GaussNoise(std_range=(0.01, 0.04), p=0.2),
        ]
    )  # fmt: skip


def photometric(
    image: NDArray[np.uint8], rng: np.random.Generator, strong: bool = False
) -> NDArray[np.uint8]:
    """Change colours, sharpness and noise of a uint8 (H, W, 3) image, and not its geometry.

    Args:
        strong: now and then as by night or another sensor, too: see `_other_light`.
    """
    if strong:
        image = _other_light(image, rng)
    change = _photometric()
    for step in change.transforms:
        # A seed each: Compose would give all of them the same, and they would act together or not.
        step.set_random_seed(int(rng.integers(2**31)))
    return change(image=image)["image"]


def _other_light(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Seldom a negative, seldom each channel a mean of all three with random weights, seldom a
    gamma of 0.3 to 3: what infrared, heat or night make of a scene.
    """
    negative, mixed, lit = rng.random(3) < _SELDOM
    if negative:
        image = 255 - image
    if mixed:
        weights = rng.dirichlet(np.ones(3), 3)
        image = np.rint(image @ weights.T).astype(np.uint8)
    if lit:
        gamma = math.exp(rng.uniform(*np.log(_GAMMA)))
        image = cv2.LUT(image, np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8))
    return image
