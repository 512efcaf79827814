"""Object discovery: the Internet set, and other collections in the layout of a folder a class.

Rubinstein, Joulin, Kopf, Liu, "Unsupervised Joint Object Discovery and Segmentation in Internet
Images" (CVPR 2013), its subsets of 100 images; the widths of the graph's weights for them are those
of Shen et al. (arXiv 2110.15904).
"""

from pathlib import Path

from pipelines.benchmark.base import Benchmark, existing, fingerprint, images_of
from pipelines.benchmark.sets.discovery import Collection, Discovery
from segswap.files.folders import subfolders

_SIGMAS = {"Airplane": 0.8, "Car": 5.0, "Horse": 1.2}  # by class, in cells


def _internet(root: Path, limit: int | None) -> Discovery:
    classes = {name: existing(root / f"{name}100", root / name) for name in _SIGMAS}
    return _discovery(root, [
        _collection(name, folder, folder / "GroundTruth", limit, _SIGMAS[name])
        for name, folder in classes.items()
    ], limit)  # fmt: skip


def _coseg(root: Path, limit: int | None) -> Discovery:
    images = existing(root / "images")
    return _discovery(root, [
        _collection(name, images / name, root / "masks" / name, limit)
        for name in subfolders(images)
    ], limit)  # fmt: skip


def _collection(
    name: str, images: Path, masks: Path, limit: int | None, sigma: float | None = None
) -> Collection:
    chosen = images_of(images)[:limit]
    return Collection(name, chosen, [existing(masks / f"{i.stem}.png") for i in chosen], sigma)


def _discovery(root: Path, collections: list[Collection], limit: int | None) -> Discovery:
    files = [path for each in collections for path in (*each.images, *each.masks)]
    return Discovery(collections, {"images": fingerprint(root, files), "limit": limit})


INTERNET = Benchmark(
    "internet", "object discovery, Internet set, 100 images a class", ("internet", "Internet"),
    "Airplane100/, Car100/ and Horse100/ with the images, and in each GroundTruth/ with a mask "
    "IMAGE.png for every one",
    _internet,
)  # fmt: skip
COSEG = Benchmark(
    "coseg", "object discovery, a folder of images a class", ("coseg",),
    "images/CLASS/ with images, and masks/CLASS/ with a mask IMAGE.png for every one",
    _coseg,
)  # fmt: skip
