"""Change an image's style and nothing of its geometry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from skimage.exposure import match_histograms

from segswap import geometry
from segswap.data.pair import Pair
from segswap.files import storage
from segswap.files.folders import PassedOver, find_images
from segswap.files.images import ImageError, read_image, read_size, read_sizes
from segswap.files.stopwatch import stage

if TYPE_CHECKING:
    from torch import Tensor

    from generators.styles.adain import AdaIN

Image = NDArray[np.uint8]
# Style pictures are kept no larger: their statistics are the same, and a worker's memory is small.
_SIDE = 512
_KEPT = 64
_TRIES = 200  # pictures that are drawn one after another, at most, where they cannot be read
# Half the side of the exchanged square of frequencies, as a share of the image's side.
_BETA = 0.01
# Least standard deviation of a photograph's colours in grey levels: a grey photograph's faint
# colours are the JPEG encoder's, and are not to be blown up.
_LEAST_DEVIATION = 5.0


@dataclass(frozen=True)
class Choice:
    """How one image is restyled.

    Attributes:
        image: the style picture's path relative to its folder.
        alpha: strength from 0, the image as it is, to 1.
    """

    image: str
    alpha: float


class Styler:
    """Restyles images after the pictures of a folder.

    Attributes:
        method: "adain", neural style transfer, or a name in METHODS.
        names: the style pictures' paths relative to their folder.
        pairs_at_once: how many pairs are best restyled in one call.
        broken: pictures that were drawn and could not be read, with the reasons.
    """

    def __init__(
        self, method: str, folder: str, names: Sequence[str], network: "AdaIN | None" = None
    ) -> None:
        self.method = method
        self.names = tuple(names)
        self.pairs_at_once = network.at_once // 2 if network else 1
        self._folder = folder
        self._network = network
        self._statistics: dict[str, Tensor] = {}
        self.broken: dict[str, str] = {}
        self.picture = lru_cache(maxsize=_KEPT)(self._read)

    @classmethod
    def from_folder(
        cls, method: str, folder: str, weights: str | None = None, device: str = "auto"
    ) -> "Styler":
        """A styler with the pictures of a folder.

        Args:
            method: "adain" or a name in METHODS.
            folder: of the style pictures, or its URL.
            weights: folder of adain's weights; by default the published ones, downloaded once.
            device: where adain runs; auto is the GPU where there is one.

        Raises:
            ValueError: the folder holds no usable picture, or the weights do not fit.
            RuntimeError: adain's weights are neither given nor there to be downloaded.
        """
        # The same in every locale, for pairs record them.
        names = list(map(storage.text_of, find_images(folder).images))
        # One that cannot be used costs itself alone, when it is drawn.
        if not any(_usable(storage.join(folder, name)) for name in names):
            (first, *_) = unusable_styles(folder)
            raise ValueError(
                f"{folder} holds no usable picture: {first.path}: {first.reason}; give others"
            )
        if method != "adain":
            return cls(method, folder, names)
        # torch takes seconds and hundreds of megabytes: only who restyles with it imports it.
        import torch

        from generators.styles.adain import AdaIN
        from generators.styles.adain_weights import load_weights

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(method, folder, names, AdaIN(*load_weights(weights), device))

    def draw(self, rng: np.random.Generator) -> Choice:
        """A picture and a strength alpha ~ U(0, 1), to the four digits that are recorded.

        A picture that cannot be read is noted in `broken`, and another one is drawn.

        Raises:
            RuntimeError: 200 pictures one after another could not be read.
        """
        for _ in range(_TRIES):
            name = self.names[rng.integers(len(self.names))]
            if self._can_be_read(name):
                return Choice(name, round(float(rng.uniform()), 4))
        raise RuntimeError(
            f"{_TRIES} pictures in {self._folder} one after another could not be read, the last: "
            f"{name}: {self.broken[name]}"
        )

    def _can_be_read(self, name: str) -> bool:
        if name not in self.broken and name not in self._statistics:
            try:
                self.picture(name)
            except ImageError as error:
                self.broken[name] = error.reason
        return name not in self.broken

    def restyle(self, images: Sequence[Image], choices: Sequence[Choice]) -> list[Image]:
        """Restyle images, uint8 (H, W, 3), each as chosen; the two of a pair follow each other."""
        if self._network is None:
            return [self._blended(*each) for each in zip(images, choices, strict=True)]
        styles = [self._style(choice.image) for choice in choices]
        return self._network.restyle(images, styles, [choice.alpha for choice in choices])

    def _blended(self, image: Image, choice: Choice) -> Image:
        restyled = METHODS[self.method](image, self.picture(choice.image)).clip(0, 255)
        mixed = (1 - choice.alpha) * image + choice.alpha * restyled
        return np.rint(mixed).astype(np.uint8)

    def _style(self, name: str) -> "Tensor":
        """A picture's statistics, computed once."""
        if name not in self._statistics:
            assert self._network is not None
            self._statistics[name] = self._network.statistics(self.picture(name))
        return self._statistics[name]

    def _read(self, name: str) -> Image:
        """A style picture, its shorter side at most _SIDE."""
        picture = read_image(storage.join(self._folder, name))
        height, width = picture.shape[:2]
        scale = _SIDE / min(height, width)
        if scale >= 1:
            return picture
        return geometry.resize(picture, round(width * scale), round(height * scale))


def unusable_styles(folder: str) -> list[PassedOver]:
    """What of a folder of style pictures cannot be used, as far as their headers tell.

    Raises:
        ValueError, StorageError: see `find_images`.
    """
    found = find_images(folder)
    sizes = read_sizes(storage.join(folder, name) for name in found.images)
    broken = [
        PassedOver(name, size.reason, "style")
        for name, size in zip(found.images, sizes, strict=True) if isinstance(size, ImageError)
    ]  # fmt: skip
    return broken + [entry._replace(kind="style") for entry in found.passed]


def _usable(path: str) -> bool:
    try:
        read_size(path)
    except ImageError:
        return False
    return True


def style_pairs(
    pairs: Sequence[Pair], styler: Styler, rngs: Sequence[np.random.Generator]
) -> list[Pair]:
    """Pairs with styled versions of both images, drawn from each pair's own generator."""
    with stage("style"):
        choices = [styler.draw(rng) for rng in rngs for _ in range(2)]
        styled = styler.restyle([i for pair in pairs for i in (pair.source, pair.target)], choices)
    records = [_record(styler.method, choice) for choice in choices]
    return [
        replace(
            pair, source_styled=styled[2 * n], target_styled=styled[2 * n + 1],
            styles={"source": records[2 * n], "target": records[2 * n + 1]},
        )
        for n, pair in enumerate(pairs)
    ]  # fmt: skip


def _record(method: str, choice: Choice) -> dict[str, Any]:
    return {"method": method, "alpha": choice.alpha, "image": choice.image}


def match_histogram(image: Image, picture: Image) -> NDArray:
    """Every channel takes on the distribution of values of the picture's."""
    return match_histograms(image, picture, channel_axis=-1)


def adapt_fourier(image: Image, picture: Image) -> NDArray:
    """The lowest frequencies take on the picture's amplitudes and keep their phases.

    Y. Yang, S. Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR 2020
    (arXiv 2004.05498), equation 3, with the paper's smallest square, which leaves no halos.

    Returns:
        float32 (H, W, 3), in about 0 to 255.
    """
    height, width = image.shape[:2]
    resized = geometry.resize(picture, width, height)
    spectrum, wanted = (
        fft.rfft2(pixels.astype(np.float32), axes=(0, 1)) for pixels in (image, resized)
    )
    reach = int(_BETA * min(height, width))
    rows = np.arange(-reach, reach + 1)
    low = np.ix_(rows, np.arange(reach + 1))
    spectrum[low] = np.abs(wanted[low]) * np.exp(1j * np.angle(spectrum[low]))
    return fft.irfft2(spectrum, s=(height, width), axes=(0, 1))


def adapt_pixels(image: Image, picture: Image) -> NDArray:
    """The colours take on mean and covariance of the picture's, by the linear map that moves them
    least: the Monge-Kantorovich map of F. Pitie, A. Kokaram, "The Linear Monge-Kantorovitch Linear
    Colour Mapping for Example-Based Colour Transfer", CVMP 2007.

    Returns:
        float64 (H, W, 3), in about 0 to 255.
    """
    (mean, covariance), (wanted_mean, wanted) = (_colours(pixels) for pixels in (image, picture))
    root = _power(covariance, 0.5)
    inverse = _power(covariance, -0.5)
    matrix = inverse @ _power(root @ wanted @ root, 0.5) @ inverse
    return (image - mean) @ matrix + wanted_mean


def _colours(image: Image) -> tuple[NDArray, NDArray]:
    """Mean (3) and covariance (3, 3) of an image's colours."""
    pixels = image.reshape(-1, 3)
    return pixels.mean(axis=0), np.cov(pixels, rowvar=False) + _LEAST_DEVIATION**2 * np.eye(3)


def _power(matrix: NDArray, exponent: float) -> NDArray:
    """A power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T


METHODS: dict[str, Callable[[Image, Image], NDArray]] = {
    "histogram": match_histogram,
    "fda": adapt_fourier,
    "pixel": adapt_pixels,
}
