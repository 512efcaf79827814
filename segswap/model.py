"""A trained matcher as users meet it: `load` a run, `match` two images, ask where points go."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from segswap import geometry
from segswap.images import read_image, to_rgb
from segswap.matchers import Matcher, Matches, build
from segswap.prediction import Prediction, enlarge
from segswap.score import pair_score

WEIGHTS = "model.safetensors"
SETTINGS = "model.json"
ImageLike = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image


@dataclass(frozen=True)
class Match:
    """What a model says of two images.

    Attributes:
        source_mask: float32 (H, W) in [0, 1] at the source's size, the probability of belonging
            to the region that both images show.
        target_mask: the same at the target's size.
        score: how much the images share: S(s, t) of `segswap.score`, in cells.
        prediction: masks and positions on the model's grid.
    """

    source_mask: NDArray[np.float32]
    target_mask: NDArray[np.float32]
    score: float
    prediction: Prediction

    def points(self, xy: NDArray) -> NDArray[np.float64]:
        """Normalised target positions (N, 2) of normalised source points (N, 2)."""
        return self.prediction.points(xy)

    def points_back(self, xy: NDArray) -> NDArray[np.float64]:
        """Normalised source positions (N, 2) of normalised target points (N, 2)."""
        return self.prediction.points_back(xy)


class Model:
    """A matcher with its weights and working size.

    Attributes:
        matcher: in eval mode, on its device.
        settings: matcher, its own settings, and size: what model.json holds.
    """

    def __init__(self, matcher: Matcher, settings: dict[str, Any]) -> None:
        self.matcher = matcher.eval()
        self.settings = settings

    @property
    def device(self) -> torch.device:
        """Where the matcher's parameters are."""
        return next(self.matcher.parameters()).device

    def match(self, source: ImageLike, target: ImageLike) -> Match:
        """Match two images, each a path, a uint8 array (H, W[, 3]) or a PIL image.

        Raises:
            ImageError: one of them cannot be read.
            ValueError: one of them is no image at all.
        """
        a, b = as_array(source, "source"), as_array(target, "target")
        matches = self._matches(a, b)
        prediction = as_predictions(matches)[0]
        return Match(
            enlarge(prediction.source_mask, a.shape[1], a.shape[0]),
            enlarge(prediction.target_mask, b.shape[1], b.shape[0]),
            float(pair_score(matches)[0]),
            prediction,
        )

    def predict(self, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> Prediction:
        """The prediction on the grid alone, for uint8 (H, W, 3) images."""
        return as_predictions(self._matches(source, target))[0]

    @torch.inference_mode()
    def _matches(self, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> Matches:
        size = self.settings["size"]
        images = [
            torch.from_numpy(geometry.resize(image, size, size)).permute(2, 0, 1)
            for image in (source, target)
        ]
        inputs = torch.stack(images).to(self.device).float() / 255
        features = self.matcher.encode(inputs)
        return self.matcher.match(features[:1], features[1:]).float()

    def save(self, folder: Path) -> None:
        """Write weights and settings into a folder, each file whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            name: value.contiguous().cpu() for name, value in self.matcher.state_dict().items()
        }
        temporary = folder / f".{WEIGHTS}.tmp"
        save_file(state, temporary)
        (folder / f".{SETTINGS}.tmp").write_text(json.dumps(self.settings, indent=1))
        os.replace(folder / f".{SETTINGS}.tmp", folder / SETTINGS)
        os.replace(temporary, folder / WEIGHTS)


def load(path: str | os.PathLike[str], device: str = "cpu") -> Model:
    """Load a trained model.

    Args:
        path: the folder of a run of segswap-train, or any folder with its model.safetensors and
            model.json.
        device: a torch device.

    Raises:
        ValueError: there is no model, or its files are damaged or of another version.
    """
    folder = Path(path)
    missing = [name for name in (SETTINGS, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} holds no model ({' and '.join(missing)} missing); expected the folder of a "
            "run of segswap-train"
        )
    try:
        settings = json.loads((folder / SETTINGS).read_text())
        # Whatever was pretrained is in the weights file too.
        matcher = build(settings["matcher"], **settings["options"])
        matcher.load_state_dict(load_file(folder / WEIGHTS))
        if settings["size"] < matcher.stride or settings["size"] % matcher.stride:
            raise ValueError(f"size {settings['size']} is no multiple of {matcher.stride}")
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds a model that cannot be loaded: {error}") from error
    return Model(matcher.to(device), settings)


def as_array(image: ImageLike, role: str) -> NDArray[np.uint8]:
    """An image of any accepted kind as uint8 RGB (H, W, 3).

    Raises:
        ImageError: a path that cannot be read as an image.
        ValueError: an array of another dtype or shape, or another kind of thing.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"the {role} image is of type {type(image).__name__}; "
            "expected a path, an array or a PIL image"
        )
    shaped = image.ndim in (2, 3) and image.shape[2:] in ((), (3,)) and image.size > 0
    if image.dtype != np.uint8 or not shaped:
        raise ValueError(
            f"the {role} image is an array of {image.dtype} {image.shape}; "
            "expected uint8 (H, W) or (H, W, 3)"
        )
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def as_predictions(matches: Matches) -> list[Prediction]:
    """The predictions of a batch of matches."""
    arrays = [
        matches.to_target, matches.to_source,
        matches.source_logits.sigmoid(), matches.target_logits.sigmoid(),
    ]  # fmt: skip
    stacked = [array.detach().float().cpu().numpy() for array in arrays]
    return [Prediction(*(array[i] for array in stacked)) for i in range(len(stacked[0]))]
