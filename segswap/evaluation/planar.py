"""Real pairs of planar scenes with a known homography, in the layout of Oxford or of HPatches.

Mikolajczyk et al., "A comparison of affine region detectors" (IJCV 2005): `img1.ppm`, `img2.ppm`,
... with `H1to2p`, ...; Balntas et al., "HPatches" (CVPR 2017): `1.ppm`, `2.ppm`, ... with `H_1_2`,
... A homography maps pixels of image 1 to pixels of image K.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.evaluation.known import Known, KnownPair
from segswap.files.folders import subfolders
from segswap.files.images import read_image

_LATTICE = 60  # points along each side of an image at which correspondences are judged
_IMAGE = re.compile(r"(?:img)?([1-9]\d*)\.(?:png|ppm|pgm|jpg|jpeg)", re.IGNORECASE)
_HOMOGRAPHY = re.compile(r"(?:H1to([1-9]\d*)p?|H_1_([1-9]\d*))(?:\.txt)?")


def planar_sequences(folder: Path) -> list[Path]:
    """The sequences at a folder: itself, or those of its subfolders that hold homographies.

    Raises:
        ValueError: there is none.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; expected one with a sequence or several")
    places = [folder, *(folder / name for name in subfolders(folder))]
    found = [place for place in places if _numbered(place, _HOMOGRAPHY)]
    if not found:
        raise ValueError(
            f"{folder} holds no planar sequence; expected img1.png, img2.png, ... and H1to2p, ... "
            "in it or in its subfolders (or 1.ppm, 2.ppm, ... and H_1_2, ...)"
        )
    return found


def planar_pairs(sequence: Path) -> Iterator[KnownPair]:
    """Image 1 of a sequence with each of the others.

    Both directions are judged at the points of a 60 x 60 lattice that land inside the other image.

    Raises:
        ValueError: an image or a homography is missing or cannot be read.
    """
    images, homographies = _numbered(sequence, _IMAGE), _numbered(sequence, _HOMOGRAPHY)
    if lacking := ({1} | set(homographies)) - set(images):
        raise ValueError(f"{sequence} lacks image {min(lacking)}; expected img{min(lacking)}.png")
    if extra := set(images) - set(homographies) - {1}:
        raise ValueError(
            f"{sequence} lacks the homography of {images[min(extra)].name}; "
            f"expected H1to{min(extra)}p"
        )
    first = read_image(images[1])
    for number, path in sorted(homographies.items()):
        other = read_image(images[number])
        matrix = np.asarray(
            np.linalg.inv(geometry.pixels_from_normalised(other.shape[1], other.shape[0]))
            @ read_homography(path)
            @ geometry.pixels_from_normalised(first.shape[1], first.shape[0])
        )
        yield KnownPair(
            f"{sequence.name}-{number}", first, other,
            _landing(matrix), _landing(np.asarray(np.linalg.inv(matrix))),
        )  # fmt: skip


def read_homography(path: Path) -> NDArray[np.float64]:
    """A 3x3 matrix from a text file.

    Raises:
        ValueError: it holds anything else, or a matrix without an inverse.
    """
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a homography: {error}") from error
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
        raise ValueError(f"{path} holds no homography; expected 3 x 3 numbers with an inverse")
    return matrix


def _landing(matrix: NDArray[np.float64]) -> Known:
    """The points of the lattice whose images under a homography lie in the other image."""
    start = geometry.cell_centres(_LATTICE, _LATTICE).reshape(-1, 2)
    # Beyond the horizon the map turns the plane over: its Jacobian is det / depth^3.
    depth = start @ matrix[2, :2] + matrix[2, 2]
    start = start[depth * np.linalg.det(matrix) > 0]
    end = geometry.transform_points(matrix, start)
    shown = geometry.inside(end)
    return Known(start[shown], end[shown])


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """Files of a folder by the number in their names."""
    found = {}
    for path in sorted(folder.iterdir()):
        if match := pattern.fullmatch(path.name):
            found[int(match[match.lastindex or 0])] = path
    return found
