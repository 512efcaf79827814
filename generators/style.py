"""Change an image's style and nothing of its geometry."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.exposure import match_histograms

from segswap.images import image_files, read_image

STYLES = ("none", "histogram")


@dataclass(frozen=True)
class Styler:
    """Restyles images after pictures of a folder.

    Attributes:
        method: "histogram": every channel takes on the distribution of values of a style picture.
        pictures: the style pictures, uint8 (H, W, 3), by path relative to their folder.
    """

    method: str
    pictures: dict[str, NDArray[np.uint8]]

    @classmethod
    def from_folder(cls, method: str, folder: str) -> "Styler":
        """Read the style pictures of a folder.

        Raises:
            ValueError: the folder holds no picture, or one of them cannot be read.
        """
        return cls(method, {name: read_image(Path(folder) / name) for name in image_files(folder)})

    def __call__(
        self, image: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Restyle one image after a picture and with a strength alpha ~ U(0, 1) drawn from rng.

        Returns:
            The styled image, uint8 (H, W, 3), and how it was made: method, alpha, image.
        """
        name = sorted(self.pictures)[rng.integers(len(self.pictures))]
        alpha = float(rng.uniform())
        matched = match_histograms(image, self.pictures[name], channel_axis=-1)
        styled = np.rint((1 - alpha) * image + alpha * matched).astype(np.uint8)
        return styled, {"method": self.method, "alpha": round(alpha, 4), "image": name}
