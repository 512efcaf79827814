"""Video frames as a collection: find the object of a sequence's first frame in all other frames.

The frames and masks are those of DAVIS 2016 (Perazzi et al., CVPR 2016); the protocol is this
project's. The query is the first frame with the box of its mask, the collection holds all other
frames of all sequences, and those of the query's sequence are relevant.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipelines.benchmark.base import Benchmark, Scores, existing, fingerprint, images_of, mean
from pipelines.benchmark.sets.brueghel import scores_of
from pipelines.benchmark.sets.retrieval import QueryTask, Ranking, Retrieval
from segswap import geometry
from segswap.evaluation.segmentation import Mask, jaccard
from segswap.files.folders import subfolders
from segswap.files.images import read_label_map
from segswap.geometry import Box
from segswap.models.prediction import enlarge


def _open(root: Path, limit: int | None) -> Retrieval:
    folder = existing(root / "images", root / "JPEGImages" / "480p")
    masks = existing(root / "masks", root / "Annotations" / "480p")
    frames = {name: images_of(folder / name) for name in subfolders(folder)}
    images = [path for own in frames.values() for path in own[1:]]
    truth = [existing(masks / path.parent.name / f"{path.stem}.png") for path in images]
    queries, first = [], []
    for name, own in list(frames.items())[:limit]:
        first += [own[0], existing(masks / name / f"{own[0].stem}.png")]
        queries.append(_query(name, own[0], first[-1], images, truth))
    files = (*images, *truth, *first)
    identity = {"files": fingerprint(root, files), "limit": limit}
    return Retrieval(images, queries, identity, partial(_scores, queries, truth), masks=True)


def _query(
    name: str, image: Path, mask: Path, images: Sequence[Path], masks: Sequence[Path]
) -> QueryTask:
    box = _box(mask)
    if box is None:
        raise ValueError(f"{mask} is empty; the object of a first frame is the query")
    own = [number for number, path in enumerate(images) if path.parent.name == name]
    boxes = {number: _box(masks[number]) for number in own}
    truth = {number: [] if box is None else [box] for number, box in boxes.items()}
    return QueryTask(image, box, name, truth)


def _scores(
    queries: Sequence[QueryTask], masks: Sequence[Path], rankings: Sequence[Ranking]
) -> Scores:
    """mAP, detection mAP, and J: the mean over the relevant frames, then over queries."""
    found = [
        mean([_overlap(ranking, number, masks[number]) for number in query.truth])
        for query, ranking in zip(queries, rankings, strict=True)
    ]
    return scores_of(queries, rankings) | {"J": mean(found)}


def _overlap(ranking: Ranking, number: int, path: Path) -> float:
    """J of the mask found in an image, above 0.5; 0 where none was found."""
    true = _mask(path)
    ranks = np.flatnonzero(ranking.numbers == number)
    mask = ranking.masks.get(int(ranks[0])) if len(ranks) else None
    if mask is None:
        return jaccard(np.zeros_like(true), true)
    return jaccard(enlarge(mask, true.shape[1], true.shape[0]) > 0.5, true)


def _mask(path: Path) -> Mask:
    return read_label_map(path) > 0


def _box(path: Path) -> Box | None:
    """The box around a mask; None of an empty one."""
    left, top, right, bottom = (float(side) for side in geometry.window_of(_mask(path)))
    return (left, top, right, bottom) if right > left else None


DAVIS = Benchmark(
    "davis-retrieval", "the object of a first frame among the frames of all sequences, DAVIS",
    ("davis-retrieval", "davis", "DAVIS"),
    "images/SEQUENCE/ with frames and masks/SEQUENCE/ with a mask FRAME.png for every one (or "
    "JPEGImages/480p/ and Annotations/480p/)",
    _open,
)  # fmt: skip
