"""Each cell's descriptor compared with those in a window of the other image's, moved by a field."""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 4  # cells to every side
WINDOW = 2 * REACH + 1
CANDIDATES = WINDOW * WINDOW
CENTRE = CANDIDATES // 2  # the candidate that the field itself names


def window_correlation(source: Tensor, target: Tensor) -> Tensor:
    """Inner products of each cell with the cells around the same place of the other map.

    Args:
        source, target: (B, C, h, w), the target's moved onto the source's cells.

    Returns:
        (B, 81, h, w); of the offset of so many rows and columns, -4 to 4 each, it is channel
        9 * (columns + 4) + rows + 4, as published; 0 beyond the border.
    """
    width = source.shape[3]
    bands = F.pad(target, (REACH,) * 4).unfold(2, WINDOW, 1)
    # All of a band of 9 rows: of these scores, of which 9 columns a cell are kept, few are idle.
    bands = bands.permute(0, 2, 1, 4, 3).flatten(3)
    scores = (source.permute(0, 2, 3, 1) @ bands).unflatten(3, (WINDOW, width + 2 * REACH))
    columns = torch.arange(width, device=source.device)[:, None]
    columns = columns + torch.arange(WINDOW, device=source.device)
    kept = scores.gather(4, columns[:, None].expand(*scores.shape[:4], WINDOW))
    return kept.permute(0, 4, 3, 1, 2).flatten(1, 2)
