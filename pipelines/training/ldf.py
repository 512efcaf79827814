"""LDF's training: two rounds, the second of which learns what the first one's network predicts."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch

from generators.networks.ldf.network import build_ldf
from generators.networks.ldf.predictor import Predictor
from generators.networks.ldf.samples import Masked, MaskedPictures
from generators.networks.ldf.task import LDFTask
from pipelines.command.messages import LOG
from pipelines.command.progress import Progress
from pipelines.training.proposer_config import LdfConfig
from pipelines.training.rounds import Stop, run_round
from segswap.files.folders import image_files
from segswap.files.images import ImageError, encode_png
from segswap.files.storage import local_path, write_atomically

COARSE = "coarse"  # folder in a run's: the first of two rounds
PREDICTED = "labels"  # folder in that one: the labels that the second round learns


class LdfTraining:
    """See Training."""

    def __init__(self, config: LdfConfig) -> None:
        self._config = config
        self._pictures, self.left_out = _usable(config)
        self.count = self.content = len(self._pictures)

    def run(self, device: torch.device, asked: Stop) -> bool:
        """See Training."""
        config, out, pictures = self._config, Path(self._config.out), self._pictures
        if config.rounds == 2 and config.decoupling != "none":
            if not _round(config, pictures, out / COARSE, COARSE, device, asked):
                return False
            pictures = _with_predicted(pictures, out / COARSE, asked)
            if asked():
                return False
        return _round(config, pictures, out, "ldf", device, asked)


def _round(
    config: LdfConfig, pictures: list[Masked], folder: Path, what: str, device: torch.device,
    asked: Stop,
) -> bool:  # fmt: skip
    """Train a round from new weights to its end; returns whether that was reached."""
    torch.manual_seed(config.seed)
    network = build_ldf(config.backbone, config.width, weights=config.weights)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    decouple = config.decoupling != "none"
    parted = config.decoupling if decouple else "linear"  # no matter how
    samples = MaskedPictures(pictures, config.size, parted, config.seed, config.workers)
    settings = {"backbone": config.backbone, "width": config.width, "size": config.size}
    return run_round(config, LDFTask(network, samples, settings, decouple), folder, what, asked)


def _with_predicted(pictures: list[Masked], coarse: Path, asked: Stop) -> list[Masked]:
    """The pictures with the body and detail that the first round's network predicts; those that
    an earlier run has written stay.
    """
    folder = coarse / PREDICTED
    folder.mkdir(parents=True, exist_ok=True)
    predictor = Predictor.load(coarse)
    square = (predictor.size, predictor.size)
    progress = Progress("labels", len(pictures), "pictures")
    told = []
    for number, picture in enumerate(pictures):
        if asked():
            break
        paths = [folder / f"{number:06}.{part}.png" for part in ("body", "detail")]
        if not all(path.exists() for path in paths):
            maps = predictor.maps([picture.read()[0]], [square])[0]
            for path, values in zip(paths, (maps.body, maps.detail), strict=True):
                write_atomically(path, encode_png((values * 255).round().astype("uint8")))
        told.append(replace(picture, body=paths[0], detail=paths[1]))
        progress.add(1)
    progress.close()
    return told


def _usable(config: LdfConfig) -> tuple[list[Masked], int]:
    """The pictures with their masks, in the order of their names, and how many cannot be used,
    which are named.

    Raises:
        ValueError: a folder is missing, or no picture has a mask.
    """
    images, masks = (Path(local_path(str(folder))) for folder in (config.images, config.masks))
    if not masks.is_dir():
        raise ValueError(f"--masks {config.masks} is not a folder; expected a PNG for each picture")
    names = image_files(images)
    usable, broken = [], []
    progress = Progress("pictures", len(names), "pictures")
    for name in names:
        picture = Masked(images / name, masks / PurePosixPath(name).with_suffix(".png"))
        try:
            picture.read()
            usable.append(picture)
        except ImageError as error:
            broken.append(str(error))
        progress.add(1)
    progress.close()
    if not usable:
        raise ValueError(
            f"none of {config.images}'s {len(names)} pictures can be used: {broken[0]}"
        )
    for text in broken:
        LOG.warning("left out: %s", text)
    return usable, len(broken)
