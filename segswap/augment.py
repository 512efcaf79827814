"""Change a pair while its ground truth stays exact: flips, thin-plate splines, photometry."""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segswap import geometry

Array = NDArray[np.float64]


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


@dataclass(frozen=True)
class Warp:
    """How an image is resampled: mirrored left to right, bent by a spline, or neither.

    A pixel of the warped image at normalised position q shows the original at `to_original(q)`.
    """

    mirrored: bool = False
    spline: Spline | None = field(default=None)

    def to_original(self, points: Array) -> Array:
        """Where warped points (..., 2) lie in the original image; exact."""
        bent = points if self.spline is None else self.spline(points)
        return _mirror(bent) if self.mirrored else bent

    def from_original(self, points: Array) -> Array:
        """Where original points (..., 2) lie in the warped image: the numerical inverse."""
        plain = _mirror(points) if self.mirrored else points
        return plain if self.spline is None else self.spline.inverse(plain)

    def image(self, image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """The warped image at size x size, from uint8 (H, W, 3)."""
        small = geometry.resize(image, size, size)
        if self.spline is not None:
            return geometry.sample(small, self.to_original(geometry.cell_centres(size, size)))
        return np.ascontiguousarray(small[:, ::-1]) if self.mirrored else small


def _mirror(points: Array) -> Array:
    return points * (-1, 1) + (1, 0)


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


def photometric(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change colours, sharpness and noise of a uint8 (H, W, 3) image, and not its geometry."""
    change = _photometric()
    for step in change.transforms:
        # A seed each: Compose would give all of them the same, and they would act together or not.
        step.set_random_seed(int(rng.integers(2**31)))
    return change(image=image)["image"]
