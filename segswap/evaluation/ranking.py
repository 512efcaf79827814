"""How good rankings of images are: average precision, detections, recall of places.

Rankings are numbers of images, best first. Protocols as in section 5 of Shen et al. (arXiv
2110.15904): details in artworks after Shen et al., "Discovering Visual Patterns in Art Collections
with Spatially-Consistent Feature Learning" (CVPR 2019), places after Arandjelovic et al., "NetVLAD"
(CVPR 2016).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torchvision.ops import box_iou

from segswap.geometry import Box

DETECTED = 0.3  # a box counts when its intersection over union with the true one is larger
NEAR = 25.0  # metres within which an image shows the query's place


def average_precision(
    ranking: Sequence[int], relevant: Collection[int], own: int | None = None
) -> float:
    """Mean of the precisions at the ranks of the relevant images; NaN where none is relevant.

    A relevant image that is not in the ranking counts with precision 0.

    Args:
        ranking: numbers of images, best first, none twice.
        relevant: numbers of those that show what was asked for.
        own: the query's own image, which is left out of both; None where it is in neither.
    """
    wanted = set(relevant) - {own}
    return _average_precision(
        [number in wanted for number in ranking if number != own], len(wanted)
    )


def detection_ap(
    ranking: Sequence[tuple[int, Box | None]],
    truth: Mapping[int, Sequence[Box]],
    own: int | None = None,
) -> float:
    """Average precision of boxes: one is right when it meets a true box of its image at an
    intersection over union above 0.3. NaN where there is no true box.

    Args:
        ranking: images, best first, each with the box found in it; an image without one is no
            detection and takes no rank.
        truth: the true boxes of the images that have some; each can be found once.
        own: the query's own image, which is left out.
    """
    boxes = {number: list(true) for number, true in truth.items() if number != own}
    total = sum(map(len, boxes.values()))
    right = []
    for number, box in ranking:
        if number == own or box is None:
            continue
        right.append(_taken(box, boxes.get(number, [])))
    return _average_precision(right, total)


def _taken(box: Box, left: list[Box]) -> bool:
    """Whether a box meets one of those that are left, which is then taken out of them."""
    if not left:
        return False
    one, others = torch.tensor([box], dtype=torch.float64), torch.tensor(left, dtype=torch.float64)
    overlaps = box_iou(one, others)[0].nan_to_num()  # of two empty boxes it is no number
    best = int(overlaps.argmax())
    if overlaps[best] <= DETECTED:
        return False
    del left[best]
    return True


def _average_precision(right: Sequence[bool], total: int) -> float:
    if not total:
        return float("nan")
    hits = np.flatnonzero(right)
    return float(np.sum(np.arange(1, len(hits) + 1) / (hits + 1)) / total)


def mean_by_category(values: Sequence[float], categories: Sequence[str]) -> float:
    """Mean over categories of the means of their values: of average precisions, mAP.

    A value of NaN (nothing was relevant) counts nowhere; NaN where all are.
    """
    members: dict[str, list[float]] = {}
    for value, category in zip(values, categories, strict=True):
        if not np.isnan(value):
            members.setdefault(category, []).append(value)
    means = [np.mean(own) for own in members.values()]
    return float(np.mean(means)) if means else float("nan")


def one_per_place(ranking: Sequence[int], places: Sequence[int] | NDArray[np.integer]) -> list[int]:
    """Spatial non-maximum suppression: of the images of one place only the best ranked is kept.

    Tokyo 24/7 has 12 images of each place, which look different ways (Torii et al., "24/7 place
    recognition by view synthesis", CVPR 2015).

    Args:
        ranking: numbers of images, best first.
        places: of every image of the database, the number of its place.
    """
    best: dict[int, int] = {}
    for number in ranking:
        best.setdefault(int(places[number]), number)
    return list(best.values())


def recall_at(
    rankings: Sequence[Sequence[int]],
    queries: ArrayLike,
    database: ArrayLike,
    ranks: Sequence[int] = (1, 5, 10),
) -> dict[int, float]:
    """Share of the queries with an image of their place, at most 25 m away, among the first k.

    A query that no image of the database is near counts as one that found nothing. NaN of no query.

    Args:
        rankings: a ranking of the database for each query.
        queries: (Q, 2) positions in metres (UTM).
        database: (N, 2) positions of the database's images.
        ranks: the values of k.
    """
    there, images = np.asarray(queries, np.float64), np.asarray(database, np.float64)
    first = [_first_near(ranking, at, images) for ranking, at in zip(rankings, there, strict=True)]
    if not first:
        return dict.fromkeys(ranks, float("nan"))
    return {k: float(np.mean([rank < k for rank in first])) for k in ranks}


def _first_near(
    ranking: Sequence[int], query: NDArray[np.float64], images: NDArray[np.float64]
) -> float:
    """The rank, from 0, of the first image near a query; inf without one."""
    away = np.linalg.norm(images[np.asarray(ranking, np.int64)] - query, axis=1)
    near = np.flatnonzero(away <= NEAR)
    return float(near[0]) if len(near) else float("inf")
