"""What training minimises: from a batch to the terms of the loss and their weighted sum."""

import torch
from torch import Tensor, nn

from segswap.matchers import Matcher, Matches, losses
from segswap.matchers.base import Batch

TERMS = ("mask", "transfer", "corr", "correlation")
Images = tuple[Tensor, Tensor]  # uint8 sources and targets, (N, 3, S, S) each


class Objective(nn.Module):
    """The losses of a matcher on a batch; what several devices share and torch.compile compiles.

    Args:
        matcher: the matcher that is trained.
        weights: of the terms, by name in TERMS; a term of weight 0 is not computed.
        negatives: pairs that share nothing for each pair of a batch, by shifting the batch against
            itself; at most the batch's size less one.
    """

    def __init__(self, matcher: Matcher, weights: dict[str, float], negatives: int) -> None:
        super().__init__()
        self.matcher = matcher
        self.weights = weights
        self.negatives = negatives

    def forward(self, batch: Batch, extra: Images | None = None) -> dict[str, Tensor]:
        """The terms, unweighted, and "loss", their weighted sum; all scalars.

        Args:
            batch: pairs that share a region.
            extra: further pairs that share nothing; part of the mask loss's one mean.
        """
        weights, count = self.weights, len(batch.source)
        source, target = self._features(batch.source, batch.target, extra)
        matches = self.matcher.match(source[:count], target[:count], self._visible(batch))
        emphasis = self.matcher.positive_weight
        terms = {}
        if weights["mask"]:
            negatives = self._negatives(source, target, count)
            terms["mask"] = losses.mask_loss(matches, batch, negatives, emphasis)
        if weights["transfer"]:
            terms["transfer"] = losses.transfer_loss(matches, batch, emphasis)
        if weights["corr"]:
            terms["corr"] = losses.correspondence_loss(matches, batch)
        if weights["correlation"] and matches.correlation is not None:
            terms["correlation"] = losses.correlation_loss(matches, batch)
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return terms | {"loss": loss}

    def _features(self, source: Tensor, target: Tensor, extra: Images | None) -> Images:
        """Features of all sources and all targets, the extra ones last; each image once."""
        if extra is not None and self.weights["mask"]:
            source, target = torch.cat([source, extra[0]]), torch.cat([target, extra[1]])
        return self.matcher.encode(scaled(source)), self.matcher.encode(scaled(target))

    def _visible(self, batch: Batch) -> Tensor | None:
        """Which target cells each source may see: in some pairs, the shared region's alone."""
        if not self.matcher.hide:
            return None
        shape = (len(batch.source), 1, 1)
        whole = torch.rand(shape, device=batch.target_mask.device) >= self.matcher.hide
        return (batch.target_mask > 0) | whole

    def _negatives(self, source: Tensor, target: Tensor, count: int) -> Matches | None:
        """Matches of pairs that share nothing: the batch's sources with the targets of its other
        samples, and the extra ones behind the first `count`.
        """
        shifts = range(1, min(self.negatives, count - 1) + 1)
        sources = [source[:count]] * len(shifts) + [source[count:]]
        targets = [target[:count].roll(shift, dims=0) for shift in shifts] + [target[count:]]
        if not shifts and len(source) == count:
            return None
        return self.matcher.match(torch.cat(sources), torch.cat(targets))


def scaled(images: Tensor) -> Tensor:
    """uint8 images as float in [0, 1], channels last in memory, which convolutions prefer."""
    return images.contiguous(memory_format=torch.channels_last).float() / 255
