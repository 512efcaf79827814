"""How far the recorded maps of a dataset miss the pixels, measured by registration.

    python benchmarks/position_error.py DATASET

Reads the shards with tarfile and Pillow and shares no code with the generator. For every object
the source is carried into the target by the recorded map; whatever affine motion then still
separates the two pictures inside the object is the map's error. It is found by Gauss-Newton on the
colours (Lucas and Kanade 1981; Baker and Matthews 2004), after smoothing against JPEG's noise and
after taking off the local mean, which Poisson blending changes.

A region without texture cannot be registered by anyone. The residual's noise and the texture give
the standard error of the found motion; regions where it is above 0.1 px are counted and left out.
It does not depend on how large the found motion is.
"""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
SMOOTH = 1.0  # px; of both pictures, against noise
LOCAL = 8.0  # px; the scale of the local mean
RIM = 4  # px at the mask's rim that are left out: there object and background mix
MAX_STANDARD_ERROR = 0.1  # px
# Pixels and channels are not independent: noise of a patch of 4 pi sigma^2 counts once.
CORRELATION = 4 * np.pi * SMOOTH**2 * 3


class Found(NamedTuple):
    """The registration of one object.

    Attributes:
        errors: displacement at the mask's pixels, in target px: (N,).
        standard_error: how well the texture determines it, in target px.
    """

    errors: Array
    standard_error: float


def samples(dataset: Path) -> Iterator[tuple[dict[str, Any], dict[str, NDArray]]]:
    """Record and images of every pair of a dataset: source, target and their masks."""
    for path in sorted(dataset.glob("*.tar")):
        with tarfile.open(path) as tar:
            record: dict[str, dict[str, Any]] = {}
            for member in tar:
                key, part = member.name.split(".", 1)
                file = tar.extractfile(member)
                assert file is not None
                record.setdefault(key, {})[part] = file.read()
        for parts in record.values():
            yield (
                json.loads(parts["json"]),
                {
                    name.split(".")[0]: np.array(Image.open(io.BytesIO(parts[name])))
                    for name in ("source.jpg", "target.jpg", "source_mask.png", "target_mask.png")
                },
            )


def register(images: dict[str, NDArray], label: int, matrix: Array) -> Found | None:
    """Register one object's pixels along its recorded map; None where too few are left.

    Args:
        images: of `samples`.
        label: the object's.
        matrix: its target_from_source, (3, 3), normalised coordinates.
    """
    height, width = images["target_mask"].shape
    mask = (images["target_mask"] == label).astype(np.uint8)
    region = cv2.erode(mask, np.ones((2 * RIM + 1,) * 2, np.uint8), borderValue=0) > 0
    if region.sum() < 200:
        return None
    carried = carry(images["source"], matrix, height, width)
    weight = region.astype(np.float32)
    first, second = detail(carried, weight), detail(images["target"], weight)
    rows, columns = np.nonzero(region)
    basis = affine_basis(columns, rows, region)
    motion = np.zeros((3, 2))
    for _ in range(12):
        step, covariance = gauss_newton(first, second, rows, columns, basis, motion)
        motion += step
        if np.abs(step).max() < 1e-4:
            break
    everywhere = affine_basis(*np.nonzero(mask)[::-1], region)
    errors = np.linalg.norm(everywhere @ motion, axis=1)
    # Variance of the displacement at each pixel: of x and of y, whose parameters alternate.
    spread = np.kron(everywhere, np.eye(2)).reshape(-1, 2, 6)
    variance = np.einsum("nij,jk,nik->n", spread, covariance, spread)
    return Found(errors, float(np.sqrt(np.median(variance))))


def carry(source: NDArray, matrix: Array, height: int, width: int) -> NDArray:
    """The source as the map puts it on the target's pixels: float32 (height, width, 3)."""
    rows, columns = source.shape[:2]
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    back = np.linalg.inv(matrix)
    place = np.stack([x, y, np.ones_like(x)], axis=-1) @ back.T
    place = place[..., :2] / place[..., 2:] * (columns, rows) - 0.5
    shrink = np.sqrt(abs(np.linalg.det(back[:2, :2])) * rows * columns / (height * width))
    picture = source.astype(np.float32)
    if shrink > 1:
        sigma = 0.5 * np.sqrt(shrink**2 - 1)
        picture = cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.1))
    mapping = place.astype(np.float32)
    return cv2.remap(
        picture, mapping[..., 0], mapping[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def detail(image: NDArray, weight: NDArray) -> NDArray:
    """The image smoothed, less its local mean inside the region: float32 (H, W, 3)."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), SMOOTH)
    total = cv2.GaussianBlur(smooth * weight[..., None], (0, 0), LOCAL)
    return smooth - total / np.maximum(cv2.GaussianBlur(weight, (0, 0), LOCAL), 1e-3)[..., None]


def affine_basis(columns: NDArray, rows: NDArray, region: NDArray) -> Array:
    """1, x and y of pixels, relative to the region's centre and extent: (N, 3)."""
    inner = np.argwhere(region)[:, ::-1]
    centre, extent = inner.mean(axis=0), np.maximum(inner.std(axis=0), 1)
    points = (np.stack([columns, rows], axis=1) - centre) / extent
    return np.column_stack([np.ones(len(points)), points])


def gauss_newton(
    first: NDArray, second: NDArray, rows: NDArray, columns: NDArray, basis: Array, motion: Array
) -> tuple[Array, Array]:
    """One step of the motion (3, 2) that carries the first picture onto the second.

    Returns the step, (3, 2), and the covariance of its six numbers, (6, 6).
    """
    moved = basis @ motion
    x = (columns + moved[:, 0]).astype(np.float32)[None]
    y = (rows + moved[:, 1]).astype(np.float32)[None]
    there = cv2.remap(second, x, y, cv2.INTER_CUBIC)[0].astype(np.float64)
    here = first[rows, columns].astype(np.float64)
    slopes = []
    for kernel in (np.array([[-0.5, 0, 0.5]]), np.array([[-0.5], [0], [0.5]])):
        slope = cv2.filter2D(second, -1, kernel)
        slopes.append(cv2.remap(slope, x, y, cv2.INTER_LINEAR)[0].astype(np.float64))
    # Unknowns: motion of x and y by each basis function, and the pictures' relative contrast.
    gradient = np.stack(slopes, axis=-1)  # (N, 3 channels, 2)
    jacobian = np.einsum("nb,ncd->ncbd", basis, gradient).reshape(len(basis), 3, 6)
    jacobian = np.concatenate([jacobian, -here[..., None]], axis=-1).reshape(-1, 7)
    residual = (here - there).ravel()
    scale = 1.48 * np.median(np.abs(residual)) + 1e-6
    trust = 1 / np.maximum(np.abs(residual) / (2 * scale), 1)
    normal = jacobian.T @ (jacobian * trust[:, None]) + 1e-9 * np.eye(7)
    step = np.linalg.solve(normal, jacobian.T @ (residual * trust))
    remaining = residual - jacobian @ step
    noise = float((trust * remaining**2).sum() / trust.sum())
    covariance = noise * CORRELATION * np.linalg.inv(normal)
    return step[:6].reshape(3, 2), covariance[:6, :6]


def measure(dataset: Path) -> tuple[Array, int, int]:
    """Errors of all objects that can be registered, 200 a region; how many those are, of how many."""
    errors, objects = [], 0
    for record, images in samples(dataset):
        for item in record["objects"]:
            objects += 1
            found = register(images, item["label"], np.array(item["target_from_source"]))
            if found is not None and found.standard_error <= MAX_STANDARD_ERROR:
                places = np.linspace(0, len(found.errors) - 1, 200).round().astype(int)
                errors.append(found.errors[places])
    return np.array(errors), len(errors), objects


def main() -> None:
    """Print the figures of the dataset that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/position_error.py DATASET")
    errors, registered, objects = measure(Path(sys.argv[1]))
    print(f"{registered} of {objects} objects registered (the others lack texture or size)")
    if registered:
        median, p95 = np.percentile(errors, [50, 95])
        print(f"position error in target px: median {median:.3f}, 95% {p95:.3f}, "
              f"max {errors.max():.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
