"""Real pairs of TSS: different objects of one kind, with masks and dense flow.

Taniai, Sinha, Sato, "Joint Recovery of Dense Correspondence and Cosegmentation in Two Images" (CVPR
2016): GROUP/PAIR/ holds image1.png, image2.png, mask1.png, mask2.png, flow1.flo, flow2.flo and
flip_gt.txt. `flowK` gives, for the pixels of image K, the way to their places in the other image;
of a pair to flip, in the other image mirrored. The share of foreground pixels whose error is at
most 5% of the longer side is the data set's flow accuracy, PCK@5% here.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.evaluation.known import Known, KnownPair
from segswap.files.folders import files_below
from segswap.files.images import read_image

Flow = NDArray[np.float32]
_EVERY = 4  # pixels between the points that are judged
_UNKNOWN = 1e9  # and more: no flow here, in the format of Middlebury
_MAGIC = 202021.25  # first number of a .flo file
_LIMIT = 10_000  # pixels of a side


def tss_groups(folder: Path) -> dict[str, list[Path]]:
    """The pairs' folders below a folder, by their group (FG3DCar, JODS, PASCAL).

    Args:
        folder: the data set's, a group's or a pair's.

    Raises:
        ValueError: there is no pair.
    """
    groups = defaultdict(list)
    files = files_below(folder)
    root = folder.resolve()
    for path in sorted(root / name for name in [*files.plain, *files.links]):
        if path.name == "image1.png":
            groups[path.parent.parent.name].append(path.parent)
    if not groups:
        raise ValueError(
            f"{folder} holds no pair of TSS; expected GROUP/PAIR/ with image1.png, image2.png, "
            "mask1.png, mask2.png, flow1.flo, flow2.flo and flip_gt.txt"
        )
    return dict(groups)


def tss_pairs(folders: list[Path]) -> Iterator[KnownPair]:
    """The pairs in their folders; of a pair to flip the target is image 2 mirrored.

    Both directions are judged at every fourth foreground pixel of every fourth row where the flow
    is known.

    Raises:
        ValueError: a file is missing, cannot be read, or does not fit the others.
    """
    for folder in folders:
        images = [read_image(folder / f"image{number}.png") for number in (1, 2)]
        masks = [read_image(folder / f"mask{number}.png")[..., 0] for number in (1, 2)]
        flows = [read_flow(folder, number) for number in (1, 2)]
        for number, (image, mask, flow) in enumerate(zip(images, masks, flows, strict=True), 1):
            if not image.shape[:2] == mask.shape == flow.shape[:2]:
                raise ValueError(
                    f"{folder}: image{number} is {image.shape[:2]}, mask{number} {mask.shape}, "
                    f"flow{number} {flow.shape[:2]}; expected one height and width"
                )
        there = _known(flows[0], masks[0], images[1].shape)
        back = _known(flows[1], masks[1], images[0].shape)
        if is_flipped(folder):
            # Flow 2 goes from image 2 to image 1 mirrored: seen in a mirror, from the target,
            # which is image 2 mirrored, to image 1.
            images[1], masks[1] = geometry.mirror(images[1]), geometry.mirror(masks[1])
            mirrored = [geometry.transform_points(geometry.mirroring(), points)
                        for points in (back.start, back.end)]  # fmt: skip
            back = Known(*mirrored)
        yield KnownPair(folder.name, images[0], images[1], there, back, masks[0], masks[1])


def read_flo(path: Path) -> Flow:
    """A flow file of Middlebury's format: float32 (H, W, 2), pixels.

    Raises:
        ValueError: it is another file, or cut short.
    """
    data = path.read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != _MAGIC:
        raise ValueError(f"{path} is no .flo file: it does not begin with {_MAGIC}")
    width, height = (int(side) for side in np.frombuffer(data, "<i4", 2, offset=4))
    if not (0 < width <= _LIMIT and 0 < height <= _LIMIT) or len(data) != 12 + 8 * width * height:
        raise ValueError(f"{path} is damaged: {len(data)} bytes for {width} x {height} pixels")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


def read_flow(folder: Path, number: int) -> Flow:
    """flowN.flo, or flowN.npz with the same as its array `flow`."""
    path = folder / f"flow{number}.npz"
    if not path.is_file():
        path = path.with_suffix(".flo")
        if not path.is_file():
            raise ValueError(f"{path} is missing; expected it, or the same as .npz")
        return read_flo(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            flow = arrays["flow"].astype(np.float32)
    except Exception as error:  # unzipping and parsing raise many kinds
        raise ValueError(f"{path} cannot be read: {error}") from error
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"{path} holds an array {flow.shape}; expected (H, W, 2)")
    return flow


def is_flipped(folder: Path) -> bool:
    path = folder / "flip_gt.txt"
    said = path.read_text("utf-8").strip() if path.is_file() else ""
    if said not in ("0", "1"):
        raise ValueError(f"{path} holds {said!r}; expected 0 or 1")
    return said == "1"


def _known(flow: Flow, mask: NDArray[np.uint8], other: tuple[int, ...]) -> Known:
    """Where the foreground of an image lies in the other one, which has a shape (H, W, ...)."""
    height, width = mask.shape
    rows, columns = np.mgrid[_EVERY // 2 : height : _EVERY, _EVERY // 2 : width : _EVERY]
    step = flow[rows, columns].astype(np.float64)
    # A comparison with NaN is False: that is unknown too.
    known = (mask[rows, columns] > 0) & (np.abs(step) < _UNKNOWN).all(axis=-1)
    start = np.stack([columns, rows], axis=-1)[known]
    return Known(
        geometry.to_normalised(start, width, height),
        geometry.to_normalised(start + step[known], other[1], other[0]),
    )
