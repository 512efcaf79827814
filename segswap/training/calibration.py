"""Held-out pairs as a matcher is calibrated on them: at its working size, with their masks."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from segswap import geometry
from segswap.batches.held_out import KindPair
from segswap.data.pair import Pair
from segswap.matchers.base import Batch, BatchSide
from segswap.models.model import Model


def calibration_pairs(
    model: Model, pairs: Sequence[Pair], kinds: Sequence[KindPair]
) -> Iterator[Batch]:
    """Batches of one pair each, on the model's device, of which the masks alone are known.

    Args:
        model: whose size and grid of masks they have.
        pairs: generated ones.
        kinds: of pictures of one kind; those without masks are left out.
    """
    size = model.settings["size"]
    cells = size // model.matcher.mask_stride

    def side(image: NDArray[np.uint8], mask: NDArray) -> BatchSide:
        shown = torch.from_numpy(geometry.resize(image, size, size)).permute(2, 0, 1)[None]
        shares = geometry.cell_means((mask > 0).astype(np.float32), cells, cells)
        return BatchSide(
            shown.to(model.device), torch.zeros(1, 1, dtype=torch.int64, device=model.device),
            torch.from_numpy(shares)[None].to(model.device),
        )  # fmt: skip

    for pair in pairs:
        yield Batch(side(pair.source, pair.source_mask), side(pair.target, pair.target_mask))
    for both in kinds:
        views = both.source, both.target
        told = [(view.image, view.mask) for view in views if view.mask is not None]
        if len(told) == len(views):
            yield Batch(*(side(image, mask) for image, mask in told))
