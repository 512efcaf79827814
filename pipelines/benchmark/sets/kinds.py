"""Pictures in a folder for each kind, and pairs of them, drawn evenly and always the same ones."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipelines.benchmark.base import existing, images_of
from segswap.evaluation.segmentation import Mask
from segswap.files.folders import subfolders
from segswap.files.images import read_label_map, read_size

Item = TypeVar("Item")
Both = tuple[Path, Path]
LAYOUT = (
    "images/KIND/ with images, masks/KIND/ with a mask IMAGE.png for every one, and, where only "
    "some are to be scored, heldout.txt with a line KIND/IMAGE.jpg for each"
)


def pictures_of(root: Path) -> dict[str, list[Path]]:
    """The pictures to be scored by their kinds, both sorted: those that heldout.txt lists, or all
    where there is no such file.

    Raises:
        ValueError: a folder is missing or empty, or a listed picture is not there.
    """
    folder = existing(root / "images")
    kinds = {name: images_of(folder / name) for name in subfolders(folder)}
    listed = root / "heldout.txt"
    if not listed.is_file():
        return kinds
    names = [line.strip() for line in listed.read_text("utf-8").splitlines()]
    wanted = {folder / name for name in names if name}
    if lacking := sorted(wanted - set(chain(*kinds.values()))):
        raise ValueError(f"{listed} names {lacking[0]}, which is not there")
    return {kind: [path for path in own if path in wanted] for kind, own in kinds.items()}


def mask_path(root: Path, picture: Path) -> Path:
    """Where the mask of a picture lies.

    Raises:
        ValueError: it is missing.
    """
    return existing(root / "masks" / picture.parent.name / f"{picture.stem}.png")


def read_mask(root: Path, picture: Path) -> Mask:
    """Where a picture shows its kind: bool (H, W).

    Raises:
        ValueError: the mask cannot be read, or is not of its picture's size.
    """
    path, (width, height) = mask_path(root, picture), read_size(picture)
    mask = read_label_map(path) > 0
    if mask.shape != (height, width):
        raise ValueError(f"{path} is {mask.shape}, its image {height, width}; expected one size")
    return mask


# --- pairs -----------------------------------------------------------------------------------


def pairs_within(pictures: Sequence[Path], rng: np.random.Generator) -> Iterator[Both]:
    """All pairs of different pictures, each once, in an order in which every picture comes about as
    often as any other from the beginning: shuffled, all at distance 1, all at distance 2, ...
    """
    order, count = rng.permutation(len(pictures)), len(pictures)
    for distance in range(1, count // 2 + 1):
        # At half the way round, the second half meets the first one again.
        for place in range(distance if 2 * distance == count else count):
            yield pictures[order[place]], pictures[order[(place + distance) % count]]


def pairs_between(
    pictures: Sequence[Path], others: Sequence[Path], rng: np.random.Generator
) -> Iterator[Both]:
    """All pairs of a picture and one of the others, each once, in an order like `pairs_within`'s:
    both lists go round together, and one steps on where both are at their beginnings again.
    """
    first, second = rng.permutation(len(pictures)), rng.permutation(len(others))
    together = math.lcm(len(pictures), len(others))
    for place in range(len(pictures) * len(others)):
        other = second[(place + place // together) % len(others)]
        yield pictures[first[place % len(pictures)]], others[other]


def in_turn(groups: Iterable[Iterator[Item]], count: int) -> list[Item]:
    """So many items of groups, one of each in turn; where a group ends, more of the others."""
    turns = zip_longest(*groups)
    return list(islice((item for turn in turns for item in turn if item is not None), count))


def spread(*lists: Sequence[Item]) -> list[Item]:
    """All items of lists in one, each list's in order and spread evenly over the whole."""
    placed = [
        ((place + 0.5) / len(items), item) for items in lists for place, item in enumerate(items)
    ]
    return [item for _, item in sorted(placed, key=lambda both: both[0])]
