"""Pairs made by hand, with a known map and no blending, and datasets of them on disk."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from conftest import textured
from PIL import Image

from segswap import geometry
from segswap.data.manifest import MANIFEST
from segswap.data.pair import FORMAT, Pair, PairObject
from segswap.data.shards import shard_name, write_shard

# Turned by 10 degrees, smaller, and moved: nothing maps to its own place.
PLACEMENT = (
    geometry.translation(0.45, 0.5)
    @ geometry.rotation(10)
    @ geometry.scaling(0.75, 0.65)
    @ geometry.translation(-0.5, -0.5)
)


def pasted_pair(
    index: int = 0, size: int = 96, matrix: np.ndarray = PLACEMENT, styled: bool = False
) -> Pair:
    """A disc of a textured picture pasted into another one through a map, sharp-edged."""
    source = soft_texture(size, 100 + index)
    disc = np.zeros((size, size), np.uint8)
    cv2.circle(disc, (size // 2, size // 2), round(size * 0.36), 1, -1)
    pasted = geometry.warp_labels(disc, matrix, size, size)
    moved = geometry.warp(source, matrix, size, size)
    target = np.where(pasted[..., None] > 0, moved, soft_texture(size, 200 + index))
    item = PairObject(1, matrix, "disc", {}, "paste")
    other = np.full_like(source, 40)
    styles = {"source_styled": other, "target_styled": other} if styled else {}
    return Pair(index, source, target, disc, pasted, (item,), rng=(0, index), **styles)


def soft_texture(size: int, seed: int) -> np.ndarray:
    """A picture to compare pixels of: smooth enough to be interpolated, its colour smooth enough
    for JPEG, which halves colour's resolution: uint8 (size, size, 3).
    """
    grey = cv2.GaussianBlur(textured(size, size, seed)[..., 0], (0, 0), 1.0)
    tint = geometry.resize(textured(8, 8, seed + 1), size, size)
    return np.uint8(0.8 * grey[..., None] + 0.2 * tint)


def image_files(folder: Path) -> tuple[Path, Path]:
    """Files of two images of different sizes and shapes, 120 x 70 and 90 x 150."""
    paths = folder / "a.png", folder / "b.jpg"
    Image.fromarray(textured(70, 120, 0)).save(paths[0])
    Image.fromarray(textured(150, 90, 1)).save(paths[1])
    return paths


def write_dataset(
    folder: Path, train: Sequence[Pair], val: Sequence[Pair] = (), shard_pairs: int = 3
) -> str:
    """A dataset as segswap-generate leaves it, as far as readers need it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for split, pairs in (("train", train), ("val", val)):
        entries = [
            write_shard(folder / shard_name(split, n), pairs[first : first + shard_pairs])
            for n, first in enumerate(range(0, len(pairs), shard_pairs))
        ]
        splits[split] = {"pairs": len(pairs), "shards": entries}
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "splits": splits}))
    return str(folder)
