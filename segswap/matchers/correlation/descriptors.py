"""Dense gradient descriptors: what the correlation matcher knows before it has learned anything.

Orientation histograms on a 4 x 4 layout around every cell, as in SIFT (Lowe, IJCV 2004, section
6), without its rotation: taken at several window sizes, so that two windows of different size show
the same thing when it is shown at different scales.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from segswap.matchers.sampling import axis_places

ORIENTATIONS = 8
LAYOUT = 4  # bins along each side of a window
CHANNELS = ORIENTATIONS * LAYOUT * LAYOUT
_BIN_PIXELS = 4  # side of a bin, in pixels of the image resized for its window
WINDOW_PIXELS = LAYOUT * _BIN_PIXELS  # side of every window there
_BIN_SIGMA = 0.4  # spread of a bin's Gaussian weight, in bins
_CLIP = 0.2


def describe(images: Tensor, windows: tuple[float, ...], stride: int) -> Tensor:
    """Histograms of gradient orientations around every cell, not normalised.

    Args:
        images: (B, 3, H, W) in [0, 1], H and W multiples of the stride.
        windows: sides of the square windows in pixels.
        stride: pixels a cell.

    Returns:
        (B, S, 128, h, w), one map a window; zero where the image is flat.
    """
    rows, columns = images.shape[2] // stride, images.shape[3] // stride
    grey = images.float().mean(1, keepdim=True)
    maps = []
    for window in windows:
        factor = WINDOW_PIXELS / window
        size = [max(LAYOUT, round(side * factor)) for side in grey.shape[2:]]
        resized = F.interpolate(grey, size, mode="bilinear", antialias=True)
        energy = _orientations(resized)
        # Bins are weighted sums along y, then along x: two small matrix products.
        down = _bins(rows, size[0], window / images.shape[2]).to(energy)
        right = _bins(columns, size[1], window / images.shape[3]).to(energy)
        bins = (down @ energy @ right.T).unflatten(3, (columns, LAYOUT))
        bins = bins.unflatten(2, (rows, LAYOUT)).permute(0, 1, 3, 5, 2, 4)
        maps.append(bins.reshape(-1, CHANNELS, rows, columns))
    return torch.stack(maps, dim=1)


def normalise(histograms: Tensor, floor: float = 0.02) -> Tensor:
    """Histograms (B, S, 128, h, w) to length 1, large entries clipped at 0.2 as in SIFT.

    Args:
        floor: added to the length, so that noise in flat places is not blown up.
    """
    scaled = histograms / (histograms.norm(dim=2, keepdim=True) + floor)
    return F.normalize(scaled.clamp(max=_CLIP), dim=2, eps=1e-3)


def _orientations(grey: Tensor) -> Tensor:
    """Gradient strength (B, 8, H, W) by direction, of images (B, 1, H, W)."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    along_x = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    along_y = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    angles = torch.arange(ORIENTATIONS, device=grey.device) * (2 * math.pi / ORIENTATIONS)
    angles = angles[:, None, None]
    towards = F.relu(along_x * angles.cos() + along_y * angles.sin())
    strength = (along_x**2 + along_y**2).sqrt() + 1e-6
    return towards * (towards / strength)  # strength times the squared cosine


@lru_cache(maxsize=256)
def _bins(cells: int, pixels: int, window: float) -> Tensor:
    """Weights (cells * 4, pixels) of each cell's four bins along one axis.

    Args:
        window: the window's side as a share of the image's.
    """
    centres = axis_places(cells) / cells
    offsets = (torch.arange(LAYOUT) - (LAYOUT - 1) / 2) * window / LAYOUT
    places = (centres[:, None] + offsets).reshape(-1, 1) * pixels
    sigma = _BIN_SIGMA * _BIN_PIXELS
    weights = torch.exp(-0.5 * ((axis_places(pixels) - places) / sigma) ** 2)
    return weights / (sigma * math.sqrt(2 * math.pi))
