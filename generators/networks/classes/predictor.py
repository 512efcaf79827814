"""SEAM and SC-CAM at work: of images, which classes stand out and where each is seen."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from generators.networks.cam import ClassMap
from generators.networks.classes.affinity import walked
from generators.networks.classes.network import ClassNetwork
from generators.networks.classes.samples import LONGEST
from generators.networks.classes.sccam import SCCAM
from generators.networks.classes.seam import SEAM
from generators.networks.classes.trunk import TRUNKS, build_trunk
from generators.networks.running import best_device, steadily
from generators.networks.trained import Trained, trained
from generators.networks.weights import load_network
from segswap import geometry
from segswap.files.records import Schema, checked

SCALES = 0.5, 1.0, 1.5, 2.0  # each mirrored, too
_TINY = 1e-5
_SETTINGS: Schema = {
    "backbone": (str,), "classes": (list,), "size": (int,), "affinity": (bool,),
}  # fmt: skip
_OWN: dict[str, Schema] = {"seam": {"pcm": (bool,)}, "sccam": {"clusters": (int,)}}
# Where a class has more than all else together, as after a random walk. On the backbone that ships
# maps of both methods fit held-out masks best at 0.40 to 0.59 (docs/results.md).
_THRESHOLD = 0.5
_PUBLISHED = {"seam": 0.26, "sccam": 0.15}  # background scores, on ResNet-38 without a random walk
_MOST = 4096  # classes, clusters, and pixels of a side


@dataclass(frozen=True)
class Seen:
    """What is seen of some classes in an image.

    Attributes:
        chances: (C,) of all classes in the whole image, the mean over the scales of training.
        chosen: numbers of the classes that there are maps of.
        maps: float32 (chosen, H, W) in [0, 1].
    """

    chances: NDArray[np.float32]
    chosen: NDArray[np.intp]
    maps: NDArray[np.float32]


def threshold_of(said: Trained) -> float:
    """From which value of its map on a class is there, by the method and settings of a run."""
    published = said.settings["backbone"] == "resnet38" and not said.settings["affinity"]
    return _PUBLISHED[said.method] if published else _THRESHOLD


class Predictor:
    """A network with its weights.

    Attributes:
        network: in evaluation mode, on its device.
        method: "seam" or "sccam".
        classes: their names.
        threshold: of a class's map, from which on the class is there rather than not.
    """

    def __init__(
        self, network: ClassNetwork, method: str, classes: Sequence[str], size: int,
        threshold: float = _THRESHOLD,
    ) -> None:  # fmt: skip
        self.network, self.method, self.classes = network.eval(), method, list(classes)
        self.threshold = threshold
        self._side = size  # the longer side at scale 1, as the least in training

    @classmethod
    def load(cls, place: str | os.PathLike[str]) -> "Predictor":
        """Of a run's folder or a weights file.

        Raises:
            ValueError: there are no such weights, or they are of another method.
        """
        path, said = trained(place)
        network = network_of(said, path)
        load_network(path, said, network)
        settings = said.settings
        return cls(
            network.to(best_device()), said.method, settings["classes"], settings["size"],
            threshold_of(said),
        )  # fmt: skip

    def class_maps(
        self, images: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]], most: int,
        least: float,
    ) -> list[list[ClassMap]]:  # fmt: skip
        """Maps of the classes that stand out in each image, the likeliest first.

        Args:
            images: RGB (H, W, 3), of any sizes.
            sizes: width and height of each image's maps.
            most: classes an image at most.
            least: probability at least.
        """
        found = []
        for image, size in zip(images, sizes, strict=True):
            seen = self.seen(image, size, most=most, least=least)
            found.append([
                ClassMap(self.classes[c], float(seen.chances[c]), each)
                for c, each in zip(seen.chosen, seen.maps, strict=True)
            ])  # fmt: skip
        return found

    def seen(
        self, image: NDArray[np.uint8], size: tuple[int, int], shown: Sequence[int] | None = None,
        most: int = _MOST, least: float = 0.5,
    ) -> Seen:  # fmt: skip
        """What is seen in an image.

        Args:
            image: RGB (H, W, 3).
            size: width and height of the maps.
            shown: numbers of the classes that the image is known to show; by default those that
                stand out, see `class_maps`.
        """
        with steadily():
            of_scales = {scale: self._views(image, scale) for scale in SCALES}
            views = [each for both in of_scales.values() for each in both]
            learned = [s for s in SCALES if LONGEST[0] <= s <= LONGEST[1]]
            chances = torch.stack(
                [logits.sigmoid() for s in learned for logits, _ in of_scales[s]]
            ).mean(dim=0)
            if shown is None:
                order = chances.argsort(descending=True, stable=True)[:most]
                shown = [int(c) for c in order if chances[c] >= least]
            chosen = np.array(shown, np.intp)
            maps = torch.zeros(0, size[1], size[0])
            if len(chosen):
                summed = merged([maps[torch.from_numpy(chosen)] for _, maps in views], size)
                maps = from_least(summed) if self.method == "seam" else by_largest(summed)
                if self.network.affinity is not None:
                    maps = self._walked(image, maps)
            return Seen(chances.cpu().numpy(), chosen, maps.cpu().numpy())

    @property
    def has_subs(self) -> bool:
        """Whether the network tells sub-categories apart."""
        return isinstance(self.network, SCCAM) and self.network.sub is not None

    def sub_seen(
        self, image: NDArray[np.uint8], size: tuple[int, int], shown: Sequence[int]
    ) -> NDArray[np.float32]:
        """SC-CAM's maps (C', H, W) of some classes, made of their sub-categories'; to compare.

        Args:
            image, size, shown: see `seen`.
        """
        network = self.network
        assert isinstance(network, SCCAM)
        with steadily():
            views = []
            for scale in SCALES:
                batch = self._batch(image, scale)
                plain, mirrored = network.sub_maps(torch.cat([batch, batch.flip(3)]))
                views += [plain, mirrored.flip(2)]
            of_classes = [view.unflatten(0, (len(self.classes), -1))[list(shown)] for view in views]
            summed = merged([each.flatten(0, 1) for each in of_classes], size)
            found = by_largest_of_all(summed.unflatten(0, (len(shown), -1)))
            return np.asarray(found.cpu().numpy(), np.float32)

    def features(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """SC-CAM's features (channels,) of the whole image, at scale 1."""
        assert isinstance(self.network, SCCAM)
        with steadily():
            found = self.network.pooled(self._batch(image, 1.0)).flatten()
            return np.asarray(found.cpu().numpy(), np.float32)

    def _batch(self, image: NDArray[np.uint8], scale: float) -> Tensor:
        """The image at a scale: (1, 3, H, W) in [0, 1]."""
        factor = scale * self._side / max(image.shape[:2])
        height, width = (max(1, round(side * factor)) for side in image.shape[:2])
        pixels = torch.from_numpy(geometry.resize(image, width, height))
        device = next(self.network.parameters()).device
        return pixels.permute(2, 0, 1)[None].to(device).float() / 255

    def _views(self, image: NDArray[np.uint8], scale: float) -> list[tuple[Tensor, Tensor]]:
        """Logits (C,) and maps (C, h, w) of the image and of its mirror, turned back."""
        batch = self._batch(image, scale)
        logits, maps = self.network.seen(torch.cat([batch, batch.flip(3)]))
        return [(logits[0], maps[0]), (logits[1], maps[1].flip(2))]

    def _walked(self, image: NDArray[np.uint8], maps: Tensor) -> Tensor:
        assert self.network.affinity is not None
        features = self.network.affinity(self.network.trunk(self._batch(image, 1.0)))[0]
        return merged([walked(maps, features)], (maps.shape[2], maps.shape[1]))


def merged(views: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The sum of maps (C, ., .) of several sizes at one, width and height."""
    whole = (size[1], size[0])
    return torch.stack(
        [F.interpolate(each[None], whole, mode="bilinear")[0] for each in views]
    ).sum(dim=0)


def from_least(maps: Tensor) -> Tensor:
    """Maps (C, H, W), 0 or more, each with its least value at 0 and its largest just below 1."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low + _TINY)


def by_largest(maps: Tensor) -> Tensor:
    """Maps (C, H, W), 0 or more, each divided by its largest value: M / (M + 1e-5) is then it."""
    return maps / (maps.amax(dim=(1, 2), keepdim=True) + _TINY)


def by_largest_of_all(maps: Tensor) -> Tensor:
    """Of each class's maps (C, K, H, W), all divided by the same, the largest: (C, H, W)."""
    return (maps / (maps.amax(dim=(1, 2, 3), keepdim=True) + _TINY)).amax(dim=1)


def build_network(
    method: str, settings: dict[str, Any], weights: str | None = None
) -> ClassNetwork:
    """The network of a method.

    Args:
        method: "seam" or "sccam".
        settings: backbone, classes, size, affinity; pcm of seam, clusters of sccam.
        weights: the backbone's; see `build_trunk`.
    """
    trunk, count = build_trunk(settings["backbone"], weights), len(settings["classes"])
    if method == "seam":
        return SEAM(trunk, count, settings["pcm"], settings["affinity"])
    return SCCAM(trunk, count, settings["clusters"], settings["affinity"])


def network_of(said: Trained, path: str | os.PathLike[str]) -> ClassNetwork:
    """The network that a weights file is of, its weights still to be read.

    Raises:
        ValueError: the file is of another method, or of an unknown network.
    """
    if said.method not in _OWN:
        known = " or ".join(_OWN)
        raise ValueError(f"{path} holds weights of {said.method}; expected those of {known}")
    schema = {**_SETTINGS, **_OWN[said.method]}
    settings = checked(said.settings, schema, f"{path}'s settings")
    classes, clusters = settings["classes"], settings.get("clusters", 0)
    if (
        settings["backbone"] not in TRUNKS
        or not 0 < settings["size"] < _MOST
        or not (0 < len(classes) < _MOST and 0 <= clusters < _MOST)
        or not all(isinstance(name, str) for name in classes)
    ):
        raise ValueError(f"{path} is of an unknown network: {settings}")
    return build_network(said.method, settings)
