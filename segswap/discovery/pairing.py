"""Which pairs of a collection's images are matched, and how: by a model or by any other method."""

import tempfile
from collections.abc import Callable, Sequence
from typing import IO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segswap import geometry
from segswap.discovery.links import Links, link
from segswap.discovery.settings import Settings
from segswap.files.images import ImageError, read_image
from segswap.matchers.encoding import Encoding
from segswap.models.model import Model, as_predictions
from segswap.models.prediction import Prediction
from segswap.models.score import pooled

ALL_PAIRS = 100  # images, up to which each is matched with all others
NEIGHBOURS = 20  # with which each image of a larger collection is matched
_PART = 16  # pairs whose predictions are in memory at a time
_ROWS = 1024  # of similarities in memory at a time

Pairs = Sequence[tuple[int, int]]
# Predictions of pairs of image numbers; of the targets flipped left to right where the second
# argument is True.
Predict = Callable[[Pairs, bool], list[Prediction]]
# Told how many more pairs are matched, and how many there are in all.
Advance = Callable[[int, int], None]


def silent(count: int, total: int) -> None:
    """Tells nobody."""


def check_enough(readable: int, skipped: Sequence[tuple[str, str]]) -> None:
    """Refuse a collection in which nothing can repeat.

    Raises:
        ValueError: fewer than two images can be read.
    """
    if readable < 2:
        said = "".join(f"; skipped {image}: {reason}" for image, reason in skipped[:3])
        raise ValueError(f"expected at least 2 images that can be read, got {readable}{said}")


def readable(images: Sequence[str]) -> tuple[list[int], list[tuple[str, str]]]:
    """Numbers of the images that can be read, and path and reason of the others."""
    numbers, skipped = [], []
    for number, image in enumerate(images):
        try:
            read_image(image)
        except ImageError as error:
            skipped.append((image, error.reason))
        else:
            numbers.append(number)
    return numbers, skipped


def chosen_pairs(
    plain: NDArray[np.float32], mirrored: NDArray[np.float32], neighbours: int | None
) -> list[tuple[int, int]]:
    """The pairs of N images that are matched, each once, lower number first.

    Args:
        plain, mirrored: descriptors of length 1, (N, D), of the images and of the images flipped
            left to right.
        neighbours: that each image gets, by the larger similarity of the two; None for as many as
            `discover` says.

    Raises:
        ValueError: no neighbours.
    """
    count = len(plain)
    if neighbours is None:
        neighbours = count if count <= ALL_PAIRS else NEIGHBOURS
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}; expected at least 1")
    pairs: set[tuple[int, int]] = set()
    for first in range(0, count, _ROWS):
        rows = plain[first : first + _ROWS]
        similar = np.maximum(rows @ plain.T, rows @ mirrored.T)
        similar[np.arange(len(rows)), first + np.arange(len(rows))] = -np.inf
        near = np.argsort(-similar, axis=1, kind="stable")[:, : min(neighbours, count - 1)]
        for image, others in enumerate(near.tolist(), first):
            pairs.update((min(image, other), max(image, other)) for other in others)
    return sorted(pairs)


def match_pairs(
    pairs: Pairs, predict: Predict, settings: Settings, advance: Advance = silent
) -> Links:
    """Match pairs of images, and again with the second one mirrored; see `links.link`."""
    found = []
    for first in range(0, len(pairs), _PART):
        part = pairs[first : first + _PART]
        plain, mirrored = (predict(part, flipped) for flipped in (False, True))
        if settings.same == "thing":
            plain, mirrored = ([p.of_things() for p in some] for some in (plain, mirrored))
        found.append(link(part, plain, mirrored, settings.tolerance))
        advance(len(part), len(pairs))
    return Links.joined(found)


class Encoded(Protocol):
    """Where the encodings of images are kept; `segswap.search.index.Index` is one."""

    def encoding(self, numbers: Sequence[int]) -> Encoding:
        """What the matcher's `encode` gave for these images."""
        ...


def model_predict(model: Model, plain: Encoded, mirrored: Encoded) -> Predict:
    """Predictions of a model from encodings of images, and of the images flipped left to right."""
    at_once = model.pairs_at_once

    @torch.inference_mode()
    def predict(pairs: Pairs, flipped: bool) -> list[Prediction]:
        found: list[Prediction] = []
        for first in range(0, len(pairs), at_once):
            sources, targets = zip(*pairs[first : first + at_once], strict=True)
            source = plain.encoding(sources).to(model.device)
            target = (mirrored if flipped else plain).encoding(targets).to(model.device)
            found += as_predictions(model.matcher.match(source, target).float())
        return found

    return predict


def match_images(
    images: list[str],
    model: Model,
    neighbours: int | None,
    settings: Settings,
    advance: Advance = silent,
) -> tuple[Links, list[tuple[str, str]]]:
    """Match images by a model.

    Args:
        images: paths.
        neighbours: see `chosen_pairs`.
        settings: what counts as the same.

    Returns:
        The links between them, and path and reason of those that cannot be read.

    Raises:
        ValueError: fewer than two images can be read.
    """
    plain, mirrored, skipped = _Kept(), _Kept(), []
    for number, name in enumerate(images):
        try:
            image = read_image(name)
        except ImageError as error:
            skipped.append((name, error.reason))
            continue
        for kept, shown in ((plain, image), (mirrored, geometry.mirror(image))):
            kept.add(number, model, shown)
    check_enough(len(plain.rows), skipped)
    numbers = list(plain.rows)
    near = chosen_pairs(
        np.concatenate(plain.descriptors), np.concatenate(mirrored.descriptors), neighbours
    )
    pairs = [(numbers[a], numbers[b]) for a, b in near]
    return match_pairs(pairs, model_predict(model, plain, mirrored), settings, advance), skipped


class _Kept:
    """Encodings of images in temporary files, half precision, and their descriptors.

    Attributes:
        rows: place in the files by image number.
        descriptors: float32 (1, D) each.
    """

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.descriptors: list[NDArray[np.float32]] = []
        self._files: dict[str, IO[bytes]] = {}
        self._like: dict[str, NDArray] = {}  # one image's tensors, for their shapes and types

    def add(self, number: int, model: Model, image: NDArray[np.uint8]) -> None:
        """Encode an image, uint8 (H, W, 3)."""
        encoded = model.encode([image])
        self.descriptors.append(pooled(model.matcher, encoded).cpu().numpy())
        for name, tensor in encoded.half().items():
            self._like[name] = tensor[0].cpu().numpy()
            if name not in self._files:
                self._files[name] = tempfile.TemporaryFile()  # noqa: SIM115
            self._files[name].write(self._like[name].tobytes())
        self.rows[number] = len(self.rows)

    def encoding(self, numbers: Sequence[int]) -> Encoding:
        """See `Encoded`."""
        rows = [self.rows[number] for number in numbers]
        return Encoding({name: self._read(name, rows) for name in self._files}).float()

    def _read(self, name: str, rows: Sequence[int]) -> Tensor:
        file, like = self._files[name], self._like[name]
        read = []
        for row in rows:
            file.seek(like.nbytes * row)
            read.append(np.frombuffer(file.read(like.nbytes), like.dtype).reshape(like.shape))
        return torch.from_numpy(np.stack(read))
