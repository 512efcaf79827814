"""What matchers answer, what they are told, and the interface that trainer and applications use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segswap.matchers.encoding import Encoding


def on_grid(mask: Tensor, grid: torch.Size) -> Tensor:
    """A soft mask (B, H, W) on a grid of so many rows and columns: means where that is coarser.

    What is unknown, NaN, does not count; a cell of which nothing is known is NaN.
    """
    if mask.shape[1:] == grid:
        return mask
    rows, columns = grid
    known = F.adaptive_avg_pool2d((~mask.isnan()).to(mask.dtype), (rows, columns))
    return F.adaptive_avg_pool2d(mask.nan_to_num(), (rows, columns)) / known


@dataclass(frozen=True)
class Side:
    """What a matcher says of one image of each of a batch's pairs.

    A grid of h x w cells has its cell centres at ((column + 0.5) / w, (row + 0.5) / h) in
    normalised coordinates.

    Attributes:
        positions: (B, h, w, 2) float; for each cell the normalised (x, y) in the other image.
            Outside [0, 1] the cell has no match.
        mask_logits: (B, H, W) float; sigmoid gives the probability of belonging to what both images
            show. Its grid may be finer than that of the positions.
        features: (B, C, h, w) float, of length 1 along C: what the score compares.
        extra: what only some matchers have, by name. "correlation": (B, h w, h' w') logits of
            "these cells correspond". "same": (B, h, w) logits of "both images show the very same
            thing here, not another one of its kind". "match_score": (B,), how surely the images'
            cells match.
    """

    positions: Tensor
    mask_logits: Tensor
    features: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def cell_mask(self) -> Tensor:
        """The mask's probabilities on the grid of the positions: (B, h, w), means where the mask is
        finer.
        """
        return on_grid(self.mask_logits.sigmoid(), self.positions.shape[1:3])

    def same(self) -> Tensor:
        """The probability that both images show the very same thing in a cell: (B, h, w). Matchers
        that do not tell it from another one of its kind take all in the mask for the same.
        """
        return self.extra["same"].sigmoid() if "same" in self.extra else self.cell_mask()

    def float(self) -> "Side":
        """The same in float32."""
        extra = {name: value.float() for name, value in self.extra.items()}
        return Side(
            self.positions.float(), self.mask_logits.float(), self.features.float(), extra
        )  # fmt: skip


@dataclass(frozen=True)
class Matches:
    """Masks and correspondences of a batch of image pairs; the sides' grids may differ in size."""

    source: Side
    target: Side

    def reversed(self) -> "Matches":
        """The same with source and target exchanged."""
        return Matches(self.target, self.source)

    def both(self) -> Iterator[tuple[Side, Side]]:
        """Each side with the other one: source and target, then target and source."""
        yield self.source, self.target
        yield self.target, self.source

    def float(self) -> "Matches":
        """The same in float32."""
        return Matches(self.source.float(), self.target.float())


class BatchSide(NamedTuple):
    """One image of each of a batch's pairs, with what is known of it; None where nothing is.

    Attributes:
        image: uint8 (B, 3, S, S) RGB.
        shown: int64 (B, P), the photographs that the image was made of, by `photograph_number`;
            rows are filled up with 0, and are 0 throughout where that is unknown.
        mask: float32 (B, H, W) in [0, 1], the share of each cell of the mask's grid that belongs to
            what both images show: the shared objects of a generated pair, all of the kind's things
            in a pair of one kind. NaN where nobody knows.
        positions: float32 (B, h, w, 2), where each cell's centre lies in the other image,
            normalised.
        valid: bool (B, h, w), where that is known.
        keypoints: float32 (B, K, 2), normalised; the k-th of both sides belong together.
        seen: bool (B, K), which of them are known and in the image.
        labels: int8 (B, C), for each of the data's C kinds of things 1 where the image shows it, 0
            where it does not, -1 where nobody knows.
    """

    image: Tensor
    shown: Tensor
    mask: Tensor | None = None
    positions: Tensor | None = None
    valid: Tensor | None = None
    keypoints: Tensor | None = None
    seen: Tensor | None = None
    labels: Tensor | None = None
    same: Tensor | None = None


class Batch(NamedTuple):
    """Pairs of images and what is known of them."""

    source: BatchSide
    target: BatchSide

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        return len(self.source.image)

    @property
    def truth(self) -> frozenset[str]:
        """What is known of both images of the pairs: the names that a loss term's `needs` have."""
        known = {
            "mask": self.source.mask, "positions": self.source.positions,
            "keypoints": self.source.keypoints, "label": self.source.labels,
            "same": self.source.same,
        }  # fmt: skip
        return frozenset({"pair"} | {name for name, value in known.items() if value is not None})

    def both(self) -> Iterator[tuple[BatchSide, BatchSide]]:
        """Each side with the other one: source and target, then target and source."""
        yield self.source, self.target
        yield self.target, self.source

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same with every tensor changed."""
        sides = (
            BatchSide._make(None if tensor is None else change(tensor) for tensor in side)
            for side in self
        )
        return Batch._make(sides)

    @classmethod
    def joined(
        cls, parts: Sequence["Batch"], join: Callable[[tuple[Any, ...]], Tensor] = torch.stack
    ) -> "Batch":
        """A batch of parts of which the same is known: by default samples without the batch
        dimension, which are stacked.

        Args:
            join: makes one tensor of those of the parts.
        """
        sides = (
            BatchSide._make(
                None if values[0] is None else join(values) for values in zip(*side, strict=True)
            )
            for side in zip(*parts, strict=True)
        )
        return cls._make(sides)

    def distinct(self) -> Tensor:
        """Which sources and targets are known to show no photograph in common, so that nothing in
        them is the very same: bool (B, B), sources along the first dimension.
        """
        own, other = self.source.shown[:, None, :, None], self.target.shown[None, :, None, :]
        known = (own != 0).flatten(2).any(2) & (other != 0).flatten(2).any(2)
        return known & ~self.meet()

    def unrelated(self, kinds: bool = False) -> Tensor:
        """Which sources and targets are known to share nothing: bool (B, B), sources along the
        first dimension.

        They show no photograph in common, and every kind of thing that one is known to show is
        known to be absent from the other.

        Args:
            kinds: whether two things of one kind share something. If not, two images of whose kinds
                nothing is known share nothing when they are `distinct`.
        """
        told = self.source.labels, self.target.labels
        if told[0] is None or told[1] is None:
            return self.distinct() & (not kinds)
        (own, other) = told[0][:, None], told[1][None]
        may_share = (((own == 1) & (other != 0)) | ((other == 1) & (own != 0))).any(2)
        known = ((told[0] != -1).any(1)[:, None], (told[1] != -1).any(1)[None])
        by_kind = known[0] & known[1] & ~may_share & ~self.meet()
        return by_kind if kinds else by_kind | (~known[0] & ~known[1] & self.distinct())

    def related(self) -> Tensor:
        """Which sources and targets are known to show a kind of thing in common: bool (B, B),
        sources along the first dimension.
        """
        if self.source.labels is None or self.target.labels is None:
            return torch.zeros_like(self.meet())
        return ((self.source.labels[:, None] == 1) & (self.target.labels[None] == 1)).any(2)

    def unlabelled(self) -> Tensor:
        """Of which sources and targets it is not known what kinds either shows: bool (B, B)."""
        if self.source.labels is None or self.target.labels is None:
            return torch.ones_like(self.meet())
        return (self.source.labels == -1).all(1)[:, None] & (self.target.labels == -1).all(1)[None]

    def meet(self) -> Tensor:
        """Which sources and targets show a photograph in common: bool (B, B)."""
        own, other = self.source.shown[:, None, :, None], self.target.shown[None, :, None, :]
        return ((own == other) & (own != 0)).flatten(2).any(2)


def photograph_number(key: str) -> int:
    """What `BatchSide.shown` holds of a photograph, for a text that names its content: from 1 to
    2^63 - 1, the same in all processes.
    """
    return max(1, int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") >> 1)


@dataclass(frozen=True)
class Answers:
    """What a matcher says of a batch, and what is true: what terms are computed from.

    Attributes:
        matches: of the batch's pairs.
        batch: the pairs, with what is known of them.
        negatives: matches of further pairs, which share nothing; None where there are none.
        counted: float (N,), how much each of those pairs counts where masks are compared; 0 for
            one of which it is not known that it shares nothing. None where there are no negatives.
        counted_same: float (N,), the same where the very same thing is sought.
        counted_apart: float (N,), the same where all counts but what is known to show a kind in
            common, or the same photograph.
        asked: the matcher, and what it made of the batch's sources and targets, for terms that ask
            more of it; None where answers are given without it.
    """

    matches: Matches
    batch: Batch
    negatives: Matches | None = None
    counted: Tensor | None = None
    counted_same: Tensor | None = None
    counted_apart: Tensor | None = None
    asked: "tuple[Matcher, Encoding, Encoding] | None" = None


@dataclass(frozen=True)
class Term:
    """A part of the loss.

    Attributes:
        name: its column in the history; --loss-NAME is its weight.
        needs: what must be known of the pairs: mask, same, positions, keypoints, label; see
            `Batch.truth`.
        compute: the term of a batch of which that is known, a scalar.
        about: what it compares, for --help.
        weight: by default.
        negatives: whether pairs that share nothing take part; without such a term none are matched.
        contrast: whether it can be computed only where pairs of one kind and pairs of two are seen.
    """

    name: str
    needs: frozenset[str]
    compute: Callable[[Answers], Tensor]
    about: str
    weight: float = 1.0
    negatives: bool = False
    contrast: bool = False


class Matcher(nn.Module):
    """Base of the matchers: encodes each image once, then matches any pairs of them.

    A matcher is the one subclass in a module of this room; the module's name is its own. The
    parameters of its `__init__` are its options: typed, each with a default and a line under "Args"
    in the class's docstring, they become flags of segswap-train and the settings of its models.

    Attributes:
        stride: pixels of the image a cell, in both directions.
        mask_stride: pixels of the image a cell of the mask's grid.
        terms: the losses that it is trained with, with their default weights.
        not_saved: options that only a new matcher has a use for: where weights come from, or None
            for weights that are filled in afterwards.
        kinds: whether it tells the very same thing from another one of its kind. Its masks are then
            of kinds: nothing is known of an image with itself or with another photograph, unless
            the kinds in them are known.
        hide: probability that a training step hides the target's cells outside the shared region.
        size, match_size, lr: image side in training, image side afterwards, and learning rate, when
            the user names none.
    """

    terms: ClassVar[tuple[Term, ...]]
    not_saved: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[bool] = False
    hide: ClassVar[float] = 0.0
    size: ClassVar[int]
    match_size: ClassVar[int]
    lr: ClassVar[float]
    stride: int

    @property
    def mask_stride(self) -> int:
        """Pixels of the image a cell of the mask's grid."""
        return self.stride

    @classmethod
    def check_new(cls, options: Mapping[str, Any]) -> None:
        """Refuse options with which a new matcher cannot learn.

        Raises:
            ValueError: they do not go together; the message names flags.
        """

    def encode(self, images: Tensor) -> Encoding:
        """What `match` needs of RGB images (B, 3, H, W) in [0, 1]; H and W multiples of the
        stride, h = H / stride and w = W / stride.
        """
        raise NotImplementedError

    def compared(self, images: Encoding) -> Tensor:
        """Of what `encode` returned, what the score compares: (B, D, h, w), of length 1 along D.
        They are the features of the matches.
        """
        raise NotImplementedError

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        """Match the images of two encodings, the first with the first and so on.

        Args:
            source, target: what `encode` returned, of as many images.
            visible: bool (B, h', w'); target cells that are False are hidden from the source. None
                hides nothing.
        """
        raise NotImplementedError

    def forward(self, source: Tensor, target: Tensor) -> Matches:
        """Match images (B, 3, H, W) in [0, 1]."""
        return self.match(self.encode(source), self.encode(target))
