"""Co-segmentation: what two pictures of one kind both show, and masks carried over between them.

For any pictures in a folder a kind: a class's pictures, the frames of a sequence. The protocol is
this project's: 300 pairs of pictures of one kind are drawn, of each kind as many, and P, J and the
IoU of carried over masks are means over both pictures and then over pairs. Labels are seldom
complete: two kinds' pictures may well share something. Where they are known not to, 60 such pairs
tell the false area.
"""

from functools import partial
from pathlib import Path

import numpy as np

from pipelines.benchmark.base import Benchmark, Scores, fingerprint, mean
from pipelines.benchmark.sets.kinds import (
    LAYOUT,
    Both,
    in_turn,
    mask_path,
    pairs_between,
    pairs_within,
    pictures_of,
    read_mask,
    spread,
)
from pipelines.benchmark.sets.pairs import Pairs, PairTask, read_both, score_masks
from segswap.evaluation.metrics import mask_area
from segswap.evaluation.segmentation import transfer_iou
from segswap.models.prediction import Prediction

_PAIRS, _DISJOINT_PAIRS = 300, 60
# Of PASCAL VOC 2010: in the pictures of these classes there is nothing of the others.
_DISJOINT = [("Boat", "Cat"), ("Boat", "Dog"), ("Boat", "Monitor"), ("Boat", "Sofa")]


def _open(root: Path, limit: int | None) -> Pairs:
    kinds, rng = pictures_of(root), np.random.default_rng(0)
    shared = in_turn([pairs_within(own, rng) for own in kinds.values()], _PAIRS)
    known = [(kinds[a], kinds[b]) for a, b in _DISJOINT if a in kinds and b in kinds]
    disjoint = in_turn([pairs_between(*two, rng) for two in known], _DISJOINT_PAIRS)
    drawn = spread([(True, both) for both in shared], [(False, both) for both in disjoint])
    pairs = [
        PairTask(
            f"{number:04d}", both[0].parent.name, partial(read_both, *both),
            partial(_score, root=root, both=both) if shares else _score_disjoint,
        )
        for number, (shares, both) in enumerate(drawn[:limit])
    ]  # fmt: skip
    paths = [path for _, both in drawn[:limit] for path in both]
    files = (*paths, *(mask_path(root, path) for path in paths))
    return Pairs(pairs, {"files": fingerprint(root, files), "limit": limit}, masks=True)


def _score(prediction: Prediction, root: Path, both: Both) -> Scores:
    source, target = (read_mask(root, path) for path in both)
    return {
        **score_masks(prediction, source, target),
        "transfer IoU": mean(
            [
                transfer_iou(prediction, source, target),
                transfer_iou(prediction.reversed(), target, source),
            ]
        ),
    }


def _score_disjoint(prediction: Prediction) -> Scores:
    return {"false area": mask_area(prediction)}


COSEGMENTATION = Benchmark(
    "cosegmentation", "what two pictures of one kind both show", ("cosegmentation", "coseg"),
    LAYOUT,
    _open,
)  # fmt: skip
