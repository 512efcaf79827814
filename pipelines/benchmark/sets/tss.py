"""Dense flow and co-segmentation of two objects of one kind: TSS (see `segswap.evaluation.tss`)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmark.base import Benchmark, Scores, existing, fingerprint, mean, means
from pipelines.benchmark.sets.pairs import Pairs, PairTask, score_masks
from segswap import geometry
from segswap.evaluation.flow import flow_accuracy, flow_of, mirrored_flow
from segswap.evaluation.segmentation import label_transfer_accuracy, transfer_iou
from segswap.evaluation.tss import is_flipped, read_flow, tss_groups
from segswap.files.images import read_image
from segswap.models.prediction import Prediction

Image = NDArray[np.uint8]


def _open(root: Path, limit: int | None) -> Pairs:
    root = root.resolve()
    named = [(group, folder) for group, found in tss_groups(root).items() for folder in found]
    pairs, files = [], []
    for number, (group, folder) in enumerate(named[:limit]):
        flipped = is_flipped(folder)
        pairs.append(
            PairTask(
                f"{number:04d}", group, partial(_images, folder, flipped),
                partial(_score, folder=folder, flipped=flipped),
            )
        )  # fmt: skip
        files += _files(folder)
    return Pairs(pairs, {"files": fingerprint(root, files), "limit": limit}, by_group, masks=True)


def by_group(rows: Sequence[tuple[str, Scores]]) -> Scores:
    """Means of each group, and of the flow also the mean of the groups; of the rest, of all pairs.

    Both directions of a pair count alike, so a pair's flow is the mean of them.
    """
    groups = dict.fromkeys(group for group, _ in rows)
    flows = {
        group: mean([scores["flow"] for own, scores in rows if own == group]) for group in groups
    }
    columns = {f"flow {group}": value for group, value in flows.items()}
    columns["flow"] = mean(list(flows.values()))
    return columns | {k: v for k, v in means([s for _, s in rows]).items() if k != "flow"}


def _files(folder: Path) -> list[Path]:
    names = [f"{kind}{number}.png" for kind in ("image", "mask") for number in (1, 2)]
    flows = [existing(folder / f"flow{n}.flo", folder / f"flow{n}.npz") for n in (1, 2)]
    return [*(folder / name for name in names), *flows, folder / "flip_gt.txt"]


def _images(folder: Path, flipped: bool) -> tuple[Image, Image]:
    """The images of a pair, the second one mirrored where they are to be flipped."""
    first, second = (read_image(folder / f"image{number}.png") for number in (1, 2))
    return first, geometry.mirror(second) if flipped else second


def _score(prediction: Prediction, folder: Path, flipped: bool) -> Scores:
    masks = [read_image(folder / f"mask{number}.png")[..., 0] > 0 for number in (1, 2)]
    flows = [read_flow(folder, number) for number in (1, 2)]
    if flipped:
        # The second flow goes from image 2 to image 1 mirrored, and image 2 is matched mirrored.
        flows[1] = mirrored_flow(flows[1], masks[0].shape[1])
        masks[1] = geometry.mirror(masks[1])
    sizes = [(mask.shape[1], mask.shape[0]) for mask in masks]
    ways: list[Callable] = [prediction.points, prediction.points_back]
    try:
        accuracies = [
            flow_accuracy(
                flow_of(ways[side], masks[side].shape, sizes[1 - side]), flows[side], masks[side],
                sizes[1 - side],
            )
            for side in (0, 1)
        ]  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return {
        "flow": mean(accuracies),
        **score_masks(prediction, masks[0], masks[1]),
        "LT-ACC": label_transfer_accuracy(prediction, *masks),
        "transfer IoU": transfer_iou(prediction, *masks),
    }


TSS = Benchmark(
    "tss", "dense flow between objects of one kind, TSS", ("tss", "TSS", "TSS_CVPR2016"),
    "GROUP/PAIR/ with image1.png, image2.png, mask1.png, mask2.png, flow1.flo, flow2.flo (or "
    ".npz) and flip_gt.txt",
    _open,
)  # fmt: skip
