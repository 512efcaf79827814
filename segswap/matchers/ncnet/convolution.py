"""Convolution in four dimensions, of scores of every cell of one image with every one of another.

A 4D convolution is a sum of 2D ones over shifts along the first image's two axes. All of the first
image's cells are one batch of these: one large convolution of the second image's plane, which the
processor's library has fast code for, instead of a loop of small 3D ones.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MOST = 64  # channels that are stacked for one convolution: more take memory and bring no speed


def conv4d(scores: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scores (B, C, hA, wA, hB, wB) convolved with zeros around them: (B, D, hA, wA, hB, wB).

    Args:
        weight: (D, C, k, k, k, k), k odd.
        bias: (D,), added once.
    """
    channels, inputs, size = weight.shape[:3]
    if inputs * size**2 <= _MOST and inputs <= channels:
        return _stacked_inputs(scores, weight, bias)
    rows = size if channels * size**2 <= _MOST else 1
    total: Tensor | None = None
    for first in range(0, size, rows):
        part = _stacked_outputs(scores, weight, first, min(first + rows, size))
        total = part if total is None else total + part
    assert total is not None
    return total if bias is None else total + bias.view(-1, 1, 1, 1, 1)


def _stacked_inputs(scores: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Few channels come in: all shifts along the first image's axes become channels."""
    count, inputs, rows, columns, *plane = scores.shape
    channels, size, around = len(weight), weight.shape[2], weight.shape[2] // 2
    padded = F.pad(scores, (0, 0, 0, 0, around, around, around, around))
    shifted = padded.unfold(2, size, 1).unfold(3, size, 1)  # B, C, hA, wA, hB, wB, k, k
    stacked = shifted.permute(0, 2, 3, 1, 6, 7, 4, 5).reshape(-1, inputs * size**2, *plane)
    made = F.conv2d(stacked, weight.flatten(1, 3), bias, padding=around)
    return made.view(count, rows, columns, channels, *plane).permute(0, 3, 1, 2, 4, 5)


def _stacked_outputs(scores: Tensor, weight: Tensor, first: int, last: int) -> Tensor:
    """Few channels go out, or many in: the shifts are channels of the output, which are added up
    where they belong. The rows `first` to `last` of the kernel alone.
    """
    count, inputs, rows, columns, *plane = scores.shape
    channels, size, around = len(weight), weight.shape[2], weight.shape[2] // 2
    flat = scores.permute(0, 2, 3, 1, 4, 5).reshape(-1, inputs, *plane)
    kernel = weight[:, :, first:last].permute(2, 3, 0, 1, 4, 5).flatten(0, 2)
    made = F.conv2d(flat, kernel, padding=around)
    made = made.view(count, rows, columns, last - first, size, channels, *plane)
    made = F.pad(made.permute(0, 5, 3, 4, 6, 7, 1, 2), (around,) * 4)
    parts = [
        made[:, :, row - first, column, :, :, row : row + rows, column : column + columns]
        for row in range(first, last)
        for column in range(size)
    ]
    total = torch.stack(parts).sum(0) if len(parts) == 1 else _added(parts)
    return total.permute(0, 1, 4, 5, 2, 3)


def _added(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class Conv4d(nn.Module):
    """A layer of `conv4d`.

    Args:
        inputs, channels: that come in and go out.
        size: of the kernel along each of the four axes, odd.
    """

    def __init__(self, inputs: int, channels: int, size: int) -> None:
        super().__init__()
        bound = (inputs * size**4) ** -0.5  # as torch has it for its own convolutions
        self.weight = nn.Parameter(
            torch.empty(channels, inputs, size, size, size, size).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def forward(self, scores: Tensor) -> Tensor:
        """See `conv4d`."""
        return conv4d(scores, self.weight, self.bias)
