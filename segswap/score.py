"""How much two images share, as one number."""

import torch
from torch import Tensor

from segswap.matchers.base import Matches, sample


def pair_score(matches: Matches) -> Tensor:
    """S(s, t) of Shen et al. (arXiv 2110.15904), section 4: float (B,).

    The sum over source cells of M^s, of M^t at the cell's match, and of the cosine of the features
    of cell and match. Of several source cells that land on one target cell only the best counts.
    With a perfect mask and identical images it is the number of cells.
    """
    rows, columns = matches.target_logits.shape[1:]
    carried = sample(matches.target_logits.sigmoid()[:, None], matches.to_target)[:, 0]
    features = sample(matches.target_features, matches.to_target)
    cosine = (matches.source_features * features).sum(1)
    worth = (matches.source_logits.sigmoid() * carried * cosine).flatten(1)
    column = (matches.to_target[..., 0] * columns).floor().long().clamp(0, columns - 1)
    row = (matches.to_target[..., 1] * rows).floor().long().clamp(0, rows - 1)
    best = torch.zeros(len(worth), rows * columns, device=worth.device, dtype=worth.dtype)
    best = best.scatter_reduce(1, (row * columns + column).flatten(1), worth, "amax")
    return best.sum(1)
