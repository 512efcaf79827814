"""Pictures and the classes that they show, for the methods that learn where classes are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.command.messages import LOG
from pipelines.command.progress import Progress
from pipelines.training.proposer_config import ClassesConfig
from segswap.batches.labelled import read_labels
from segswap.batches.picture import Picture, Pictures
from segswap.batches.pictures import pictures_of
from segswap.files.storage import local_path


def labelled_pictures(config: ClassesConfig) -> tuple[Pictures, int]:
    """The pictures to learn from, whose kinds are the classes that any of them shows, and how many
    cannot be used, which are named.

    Raises:
        ValueError: nothing tells their classes, they are all of one class, or none can be used.
    """
    bad: list[str] = []
    found = _told(config, bad)
    if not found.kinds:
        raise ValueError(
            f"{config.images} holds no folders, which would be classes, so nothing tells what its "
            "pictures show: lay them out as CLASS/NAME.jpg, or give --labels CSV or --annotations "
            "JSON"
        )
    usable = []
    progress = Progress("pictures", len(found.pictures), "pictures")
    for picture in found.pictures:
        try:
            if not (picture.labels == 1).any():
                raise ValueError(f"{picture.path}: nothing tells a class that it shows")
            picture.read()
            usable.append(picture)
        except ValueError as error:
            bad.append(str(error))
        progress.add(1)
    progress.close()
    for text in bad:
        LOG.warning("left out: %s", text)
    if not usable:
        raise ValueError(f"none of {config.images}'s pictures can be used: {bad[0]}")
    return _of_shown_classes(replace(found, pictures=tuple(usable)), config), len(bad)


def shown(pictures: Pictures) -> NDArray[np.bool_]:
    """(N, C), which classes each picture is known to show."""
    return np.stack([picture.labels == 1 for picture in pictures.pictures])


def _told(config: ClassesConfig, bad: list[str]) -> Pictures:
    images = Path(local_path(config.images))
    if not images.is_dir():
        raise ValueError(f"{config.images} is not a folder; expected a folder of pictures")
    if config.labels:
        return read_labels(config.labels, images, bad)
    if config.annotations:
        if not config.annotations.endswith(".json"):
            raise ValueError(f"--annotations {config.annotations}: expected a COCO instances .json")
        return pictures_of(f"{config.annotations}:{images}", bad)
    return pictures_of(str(images), bad)


def _of_shown_classes(pictures: Pictures, config: ClassesConfig) -> Pictures:
    """The same pictures without the classes that none of them shows."""
    there: NDArray[np.bool_] = np.asarray(shown(pictures).any(axis=0))
    kinds = tuple(kind for kind, some in zip(pictures.kinds, there, strict=True) if some)
    if len(kinds) == 1:
        raise ValueError(
            f"all {len(pictures.pictures)} pictures of {config.images} are of one class, "
            f"{kinds[0]}; a classifier learns from two at least: add pictures of other things"
        )
    kept: list[Picture] = [replace(p, labels=p.labels[there]) for p in pictures.pictures]
    return replace(pictures, kinds=kinds, pictures=tuple(kept))
