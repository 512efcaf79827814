"""How good predictions are of two pictures that show the same kind of thing."""

import numpy as np

from segswap.batches.held_out import KindPair
from segswap.evaluation.metrics import mask_scores, pck, point_errors
from segswap.models.prediction import Prediction

_ALPHA = 0.1


def score_kind_pair(prediction: Prediction, pair: KindPair) -> tuple[float, float]:
    """The masks' intersection over union, mean of the pictures whose mask is known, and PCK at 0.1
    of the longer side of the box in the picture where a keypoint is sought, over the keypoints that
    both show, both ways; NaN where there is nothing to judge.
    """
    found = [
        mask_scores(mask, view.mask.view(np.uint8))[0]
        for mask, view in (
            (prediction.source_mask, pair.source), (prediction.target_mask, pair.target)
        ) if view.mask is not None
    ]  # fmt: skip
    told = [value for value in found if not np.isnan(value)]
    both = np.isfinite(pair.source.points[:, 0]) & np.isfinite(pair.target.points[:, 0])
    errors = []
    for find, start, end in (
        (prediction.points, pair.source, pair.target),
        (prediction.points_back, pair.target, pair.source),
    ):
        size = end.image.shape[1::-1]
        points = find(start.points[both]) * size, end.points[both] * size
        errors.append(point_errors(*points, max(end.box_side, 1.0)))
    iou = float(np.mean(told)) if told else float("nan")
    return iou, pck(np.concatenate(errors), (_ALPHA,))[0]
