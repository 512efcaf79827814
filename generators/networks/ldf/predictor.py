"""LDF at work: of images, how much each pixel stands out, and the body and detail of that."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from generators.networks.ldf.network import LDF, PRESETS, STRIDE, build_ldf
from generators.networks.running import best_device, steadily
from generators.networks.trained import Trained, trained
from generators.networks.weights import load_network
from segswap import geometry
from segswap.files.records import Schema, checked

METHOD = "ldf"
_SETTINGS: Schema = {"backbone": (str,), "width": (int,), "size": (int,)}
# Logits of saliency are multiplied by it: short trainings leave them small where they are right.
_SHARPER = 4.0
_MOST = 4096  # channels, and pixels of a side


class Maps(NamedTuple):
    """What the network says of an image: float32 (H, W) in [0, 1] each."""

    saliency: NDArray[np.float32]
    body: NDArray[np.float32]
    detail: NDArray[np.float32]


class Predictor:
    """A network of LDF with its weights.

    Attributes:
        network: in evaluation mode, on its device.
        size: side in pixels of the squares that images are brought to.
    """

    def __init__(self, network: LDF, size: int) -> None:
        self.network, self.size = network.eval(), size

    @classmethod
    def load(cls, place: str | os.PathLike[str]) -> "Predictor":
        """Of a run's folder or a weights file.

        Raises:
            ValueError: there are no such weights, or they are of another method.
        """
        path, said = trained(place)
        network = network_of(said, path)
        load_network(path, said, network)
        return cls(network.to(best_device()), said.settings["size"])

    def maps(
        self, images: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[Maps]:
        """The maps of the second pass, each the mean of the image's and its mirror image's.

        Args:
            images: RGB (H, W, 3), of any sizes; computed together.
            sizes: width and height of each image's maps; by default the image's.
        """
        sizes = sizes or [(image.shape[1], image.shape[0]) for image in images]
        squares = np.stack([geometry.resize(image, self.size, self.size) for image in images])
        device = next(self.network.parameters()).device
        with steadily():
            batch = torch.from_numpy(squares).permute(0, 3, 1, 2).to(device).float() / 255
            second, mirrored = self.network(batch)[1], self.network(batch.flip(3))[1]
            saliency, body, detail = (
                ((getattr(second, name) + getattr(mirrored, name).flip(3)) / 2)[:, 0].cpu().numpy()
                for name in Maps._fields
            )
        return [
            Maps(*(_probability(each, size) for each in found))
            for *found, size in zip(_SHARPER * saliency, body, detail, sizes, strict=True)
        ]


def network_of(said: Trained, path: str | os.PathLike[str]) -> LDF:
    """The network that a weights file is of, its weights still to be read.

    Raises:
        ValueError: the file is of another method, or of an unknown network.
    """
    if said.method != METHOD:
        raise ValueError(f"{path} holds weights of {said.method}; expected those of {METHOD}")
    settings = checked(said.settings, _SETTINGS, f"{path}'s settings")
    preset, width, size = settings["backbone"], settings["width"], settings["size"]
    if preset not in PRESETS or not 0 < width <= _MOST or size not in range(STRIDE, _MOST, STRIDE):
        raise ValueError(f"{path} is of an unknown network: {settings}")
    return build_ldf(preset, width)


def _probability(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    enlarged = cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR)
    return (1 / (1 + np.exp(-enlarged.clip(-30, 30)))).astype(np.float32)
