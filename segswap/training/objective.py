"""What training minimises: from a batch to the terms of the loss and their weighted sum."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from segswap.matchers.base import Answers, Batch, Matcher
from segswap.matchers.encoding import Encoding

Images = tuple[Tensor, Tensor]  # uint8 sources and targets, (N, 3, S, S) each


class Objective(nn.Module):
    """The losses of a matcher on a batch; what several devices share and torch.compile compiles.

    Args:
        matcher: the matcher that is trained.
        weights: of its terms, by name; a term of weight 0, or without one, is not computed.
        negatives: pairs that share nothing for each pair of a batch, sought among its sources and
            targets; at most the batch's size less one.
    """

    def __init__(self, matcher: Matcher, weights: Mapping[str, float], negatives: int) -> None:
        super().__init__()
        self.matcher = matcher
        self.weights = dict(weights)
        self.terms = [term for term in matcher.terms if self.weights.get(term.name)]
        self.negatives = negatives

    def forward(self, batch: Batch, extra: Images | None = None) -> dict[str, Tensor]:
        """The terms, unweighted, and "loss", their weighted sum; all scalars. Terms for which the
        batch's truth is not known are left out.

        Args:
            batch: pairs that share something.
            extra: further pairs that share nothing.

        Raises:
            ValueError: nothing that a term needs is known of the batch.
        """
        terms = [term for term in self.terms if term.needs <= batch.truth]
        if not terms:
            needs = "; ".join(f"{t.name}: {', '.join(sorted(t.needs))}" for t in self.terms)
            raise ValueError(
                f"nothing can be learned from a batch of which {', '.join(sorted(batch.truth))} is "
                f"known; the losses need {needs or 'a weight'}"
            )
        contrasted = any(term.negatives for term in terms)
        extra = extra if contrasted else None
        source, target = self._encoded(batch, extra)
        own = slice(0, batch.pairs)
        encodings = source.at(own), target.at(own)
        matches = self.matcher.match(*encodings, self._visible(batch))
        answers = Answers(matches, batch, asked=(self.matcher, *encodings))
        if contrasted and ((self.negatives and batch.pairs > 1) or extra is not None):
            answers = self._with_negatives(answers, source, target)
        values = {term.name: term.compute(answers) for term in terms}
        loss = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return values | {"loss": loss}

    def _encoded(self, batch: Batch, extra: Images | None) -> tuple[Encoding, Encoding]:
        """All sources and all targets, the extra ones last; each image once."""
        source, target = batch.source.image, batch.target.image
        if extra is not None:
            source, target = torch.cat([source, extra[0]]), torch.cat([target, extra[1]])
        return self.matcher.encode(scaled(source)), self.matcher.encode(scaled(target))

    def _visible(self, batch: Batch) -> Tensor | None:
        """Which target cells each source may see: in some pairs, the shared region's alone."""
        mask = batch.target.mask
        if not self.matcher.hide or mask is None:
            return None
        whole = torch.rand((batch.pairs, 1, 1), device=mask.device) >= self.matcher.hide
        return ~(mask <= 0) | whole  # what may be shared, unknown as it is, is seen

    def _with_negatives(self, answers: Answers, source: Encoding, target: Encoding) -> Answers:
        """The answers with matches of pairs that share nothing: the batch's sources with targets of
        its other samples, and the extra ones behind.
        """
        batch, kinds = answers.batch, self.matcher.kinds
        chosen, unrelated = negative_targets(batch, self.negatives, kinds)
        own = torch.arange(batch.pairs, device=chosen.device)
        distinct = batch.distinct()[own, chosen]
        apart = ~(batch.related() | batch.meet())[own, chosen]
        more = torch.arange(batch.pairs, source.images, device=chosen.device)
        sources = torch.cat([own.repeat(len(chosen)), more])
        negatives = self.matcher.match(
            source.at(sources), target.at(torch.cat([chosen.flatten(), more]))
        )
        # The extra ones are of other photographs, which may show the same kinds.
        counted = (
            torch.cat([known.flatten().float(), more.new_full((len(more),), told).float()])
            for known, told in ((unrelated, int(not kinds)), (distinct, 1), (apart, 1))
        )
        told, same, apart = counted
        return replace(
            answers, negatives=negatives, counted=told, counted_same=same, counted_apart=apart
        )


def negative_targets(batch: Batch, count: int, kinds: bool = False) -> tuple[Tensor, Tensor]:
    """For each source of a batch, targets of other samples that it shares nothing with.

    The nearest of the samples before it, in a circle, that are known to share nothing come first,
    then those of which only the photographs are known to differ, and then others, so that every
    batch gives as many.

    Args:
        count: for each source, at most; no more than there are other samples.
        kinds: whether things of one kind share something: see `Batch.unrelated`.

    Returns:
        int64 (K, B), the k-th target's number for each source; bool (K, B), whether the two are
        known to share nothing.
    """
    size = batch.pairs
    unrelated = batch.unrelated(kinds)
    own = torch.arange(size, device=unrelated.device)
    shifts = torch.arange(1, size, device=unrelated.device)
    others = (own[:, None] - shifts) % size
    allowed = unrelated.gather(1, others)
    rank = 2 * allowed.int() + batch.distinct().gather(1, others)
    order = rank.argsort(dim=1, descending=True, stable=True)[:, : max(count, 0)]
    return others.gather(1, order).T, allowed.gather(1, order).T


def scaled(images: Tensor) -> Tensor:
    """uint8 images as float in [0, 1], channels last in memory, which convolutions prefer."""
    return images.contiguous(memory_format=torch.channels_last).float() / 255
