"""A trained matcher as users meet it: `load` a model, `match` two images, ask where points go."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save as encode
from torch import Tensor

from segswap import geometry
from segswap.backbones.weights import read_weights
from segswap.files.images import read_image, read_pillow
from segswap.files.storage import write_atomically, write_text
from segswap.matchers.base import Matcher, Matches
from segswap.matchers.encoding import Encoding
from segswap.models.hub import (
    CARD,
    DEFAULT_MODEL,
    MODEL_FORMAT,
    SETTINGS,
    SHARED,
    WEIGHTS,
    find_model,
    fingerprint,
    read_settings,
)
from segswap.models.match import Match
from segswap.models.model_card import model_card
from segswap.models.prediction import Prediction, enlarge
from segswap.models.score import pair_score
from segswap.models.shared import without_shared
from segswap.models.weights import build_with

LARGEST = 8192  # pixels of a side to which images are brought
ImageLike = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image


class Model:
    """A matcher with its weights and working size.

    Attributes:
        matcher: in eval mode, on its device.
        settings: matcher, its own settings (options), and size, the side in pixels to which both
            images are brought: what model.json holds beside its format and a shared backbone.
        folder: where it was loaded from; None for a new one.
    """

    def __init__(
        self, matcher: Matcher, settings: dict[str, Any], folder: Path | None = None
    ) -> None:
        self.matcher = matcher.eval()
        self.settings = settings
        self.folder = folder

    @cached_property
    def fingerprint(self) -> str:
        """See `segswap.models.hub.fingerprint`, preceded by the size where it is not the one of
        model.json; "" for a model that was not loaded.
        """
        if self.folder is None:
            return ""
        own, size = read_settings(self.folder)["size"], self.settings["size"]
        return ("" if size == own else f"{size} px ") + fingerprint(self.folder)

    @property
    def device(self) -> torch.device:
        """Where the matcher's parameters are."""
        return next(self.matcher.parameters()).device

    @property
    def pairs_at_once(self) -> int:
        """How many pairs are best matched together. On a CPU, the numbers of more than one are
        slower to reach than to compute."""
        return 1 if self.device.type == "cpu" else 8

    def match(self, source: ImageLike, target: ImageLike) -> Match:
        """Match two images of any sizes and shapes, each a path, a uint8 array (H, W[, 3]) or a PIL
        image. Paths and PIL images are turned upright by their EXIF orientation.

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
            a,
            b,
        )

    def predict(self, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> Prediction:
        """The prediction on the grid alone, for uint8 (H, W, 3) images."""
        return as_predictions(self._matches(source, target))[0]

    def features(
        self, source: NDArray[np.uint8], target: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the matcher compares: features (C, h, w) of length 1 along C of both images, uint8
        (H, W, 3) each.
        """
        matches = self._matches(source, target)
        return matches.source.features[0].cpu().numpy(), matches.target.features[0].cpu().numpy()

    @torch.inference_mode()
    def _matches(self, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> Matches:
        images = self.encode([source, target])
        return self.matcher.match(images.at(slice(0, 1)), images.at(slice(1, 2))).float()

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Encoding:
        """What the matcher's `match` takes, of B uint8 (H, W, 3) images of any sizes, each brought
        to the square that the model works on.
        """
        # Not at their own aspects: the matchers are trained on squares, and match these better.
        size = self.settings["size"]
        squares = [
            torch.from_numpy(geometry.resize(image, size, size)).permute(2, 0, 1)
            for image in images
        ]
        return self.matcher.encode(torch.stack(squares).to(self.device).float() / 255)

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write weights and settings into a folder, each file whole or not at all.

        A frozen backbone with the weights that ship is named by its hash and not written.

        Args:
            half: store the weights in half precision, in half the bytes; `load` gives float32.

        Raises:
            ValueError: a weight is too large for half precision.
        """
        folder.mkdir(parents=True, exist_ok=True)
        own, shared = without_shared(self.matcher)
        state = {name: _stored(name, value, half) for name, value in own.items()}
        settings = {**self.settings, **shared, "format": MODEL_FORMAT}
        write_atomically(folder / SETTINGS, json.dumps(settings, indent=1).encode())
        write_atomically(folder / WEIGHTS, encode(state))

    def save_pretrained(self, folder: str | os.PathLike[str], *, half: bool = False) -> None:
        """`save`, with a model card as README.md: the one that the model came with, or a new one.

        A card that is there already is kept.

        Raises:
            ValueError: a weight is too large for half precision.
        """
        self._write(Path(folder), os.fspath(folder), half)

    @classmethod
    def from_pretrained(
        cls, where: str | os.PathLike[str], device: str = "cpu", *, size: int | None = None
    ) -> "Model":
        """The same as `load`."""
        return load(where, device, size=size)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None,
        commit_message: str = "Upload a segswap model", half: bool = False,
    ) -> str:  # fmt: skip
        """Upload the model, with its card, to the Hugging Face hub.

        Args:
            repo_id: "user/name"; made where it does not exist.
            private: whether a new repository is private; by default as the hub has it.
            token: of the hub; by default the one of `hf auth login`.
            commit_message: of the upload.
            half: see `save`.

        Returns:
            The URL of the commit.

        Raises:
            ValueError: the id cannot be a repository's.
            OSError: the hub refuses, or cannot be reached.
        """
        api = HfApi(token=token)
        # The user's own name is added to an id without one.
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory(prefix="segswap-") as folder:
            self._write(Path(folder), repo_id, half)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message
            )
        return done.commit_url

    def _write(self, folder: Path, where: str, half: bool) -> None:
        self.save(folder, half=half)
        if (folder / CARD).exists():
            return
        if self.folder is not None and (self.folder / CARD).is_file():
            shutil.copyfile(self.folder / CARD, folder / CARD)
            return
        own, shared = without_shared(self.matcher)
        numbers = {name: value.numel() for name, value in self.matcher.named_parameters()}
        held = sum(number for name, number in numbers.items() if name in own)
        settings = {**self.settings, **shared}
        card = model_card(settings, sum(numbers.values()), held, where, self.folder)
        write_text(folder / CARD, card)


def load(
    where: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str | torch.device = "cpu",
    *,
    size: int | None = None,
) -> Model:
    """Load a trained model.

    Args:
        where: the folder of a run of segswap-train, or any folder with its model.safetensors and
            model.json; the name of a model of this package (`segswap.shipped()`); or a hub id,
            "user/name" or "user/name@revision". The first of these that there is.
        device: a torch device.
        size: the side in pixels to which images are brought, a multiple of the matcher's stride; by
            default the one that the model was made for. A larger one finds smaller things, and
            places points more precisely, in a time that grows with up to its fourth power.

    Raises:
        ValueError: there is no model, its files are damaged or of another version, its backbone is
            not the one that ships, there is no such device, or the size is no multiple.
        RuntimeError: the hub cannot be reached.
    """
    folder = find_model(where)
    try:
        settings = read_settings(folder)
        settings.pop("format", None)
        shared = settings.pop(SHARED, None)
        own = read_weights(folder / WEIGHTS)
        matcher = build_with(settings["matcher"], settings["options"], own, shared)
        _check_size(settings["size"], matcher)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder} holds a model that cannot be loaded: {error}") from error
    if size is not None:
        _check_size(size, matcher)
        settings["size"] = size
    try:
        return Model(matcher.to(device), settings, folder)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {str(device)!r} is not there: {error}") from error


def is_model(folder: str | os.PathLike[str]) -> bool:
    """Whether there is a model in a folder that can be loaded."""
    try:
        load(Path(folder).absolute())
    except (ValueError, RuntimeError):
        return False
    return True


def _check_size(size: int, matcher: Matcher) -> None:
    stride = matcher.stride
    whole = isinstance(size, int) and not isinstance(size, bool)
    if not whole or not stride <= size <= LARGEST or size % stride:
        raise ValueError(
            f"size {size!r} is no multiple of {stride}, the matcher's stride, up to {LARGEST}; "
            f"expected {stride}, {2 * stride}, {3 * stride}, ... pixels"
        )


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    stored = value.half() if half and value.is_floating_point() else value
    if not torch.equal(stored.isfinite(), value.isfinite()):
        raise ValueError(f"{name} holds numbers too large for half precision; save without half")
    return stored.contiguous().cpu()


def as_array(image: ImageLike, role: str) -> NDArray[np.uint8]:
    """An image of any accepted kind as uint8 RGB (H, W, 3).

    Raises:
        ImageError: a path or a PIL image whose pixels cannot be read.
        ValueError: an array of another dtype or shape, or another kind of thing.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        image = read_pillow(image, name=getattr(image, "filename", "") or f"the {role} image")
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"the {role} image is of type {type(image).__name__}; "
            "expected a path, an array or a PIL image"
        )
    shaped = image.ndim in (2, 3) and image.shape[2:] in ((), (3,)) and image.size > 0
    if image.dtype != np.uint8 or not shaped:
        raise ValueError(
            f"the {role} image is an array of {image.dtype} {image.shape}; "
            "expected uint8 (H, W) or (H, W, 3), values from 0 to 255"
        )
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def as_predictions(matches: Matches) -> list[Prediction]:
    """The predictions of a batch of matches."""
    source, target = matches.source, matches.target
    arrays = [
        source.positions, target.positions,
        source.mask_logits.sigmoid(), target.mask_logits.sigmoid(),
    ]  # fmt: skip
    if "same" in source.extra:
        arrays += [source.same(), target.same()]
    stacked = [array.detach().float().cpu().numpy() for array in arrays]
    return [Prediction(*(array[i] for array in stacked)) for i in range(len(stacked[0]))]
