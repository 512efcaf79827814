"""Neighbourhood consensus: matches are kept that their neighbours in both images support."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from segswap.matchers.ncnet.convolution import Conv4d
from segswap.matchers.ncnet.scores import transposed
from segswap.matchers.ncnet.sparse import Entries, Neighbours

_GAIN = 10.0  # of all layers together, in the beginning, over torch's own convolutions


class Consensus(nn.Module):
    """4D convolutions with ReLUs after each of them, the last one too, applied to the scores and to
    the scores with the images exchanged; the sum of both does not depend on the images' order.

    The same weights filter all scores (`forward`) or a list of some (`sparse`).

    Args:
        kernels: sizes along each axis, layer by layer.
        channels: that each layer gives; the last one 1.
    """

    def __init__(self, kernels: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        layers = [
            Conv4d(inputs, outputs, size)
            for inputs, outputs, size in zip((1, *channels[:-1]), channels, kernels, strict=True)
        ]
        with torch.no_grad():
            # All that comes to the last layer is 0 or more. With weights of both signs its one
            # channel may be below 0 everywhere, and a ReLU there would never let anything learn.
            layers[-1].weight.abs_()
            layers[-1].bias.abs_()
            # A softmax over hundreds of cells tells nothing of scores below 1.
            for layer in layers:
                layer.weight.mul_(_GAIN ** (1 / len(layers)))
        self.layers: Iterable[Conv4d] = nn.ModuleList(layers)  # type: ignore[assignment]

    def forward(self, scores: Tensor) -> Tensor:
        """Of scores (B, 1, hA, wA, hB, wB)."""
        return self.one_way(scores) + transposed(self.one_way(transposed(scores)))

    def one_way(self, scores: Tensor) -> Tensor:
        """The network alone, which depends on the images' order."""
        for layer in self.layers:
            scores = layer(scores).relu()
        return scores

    def sparse(self, entries: Entries) -> Tensor:
        """Of a list of scores, on the list's places alone (submanifold convolution): (N,)."""
        sizes = {layer.weight.shape[2] for layer in self.layers}
        near = {size: entries.neighbours(size) for size in sizes}
        exchanged = {size: found.exchanged() for size, found in near.items()}
        values = entries.values.relu()
        return self._sparse_one_way(values, near) + self._sparse_one_way(values, exchanged)

    def _sparse_one_way(self, values: Tensor, near: dict[int, Neighbours]) -> Tensor:
        cells = values[:, None]
        for layer in self.layers:
            found = near[layer.weight.shape[2]]
            cells = found.convolve(cells, layer.weight, layer.bias).relu()
        return cells[:, 0]
