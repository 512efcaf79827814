"""Hard negatives: pairs of images that share nothing, and that the model takes for sharing much.

Rounds, as in the second stage of Shen et al. (arXiv 2110.15904): a pool of images is drawn, all
pairs of them are scored by the model as it is, and if enough score high, some steps of training
follow, each with extra negative pairs drawn in proportion to their score.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segswap import geometry
from segswap.batches.stream import PairSource
from segswap.data.pair import Pair, image_key
from segswap.matchers.base import Matcher
from segswap.matchers.encoding import Encoding
from segswap.training.objective import Images, scaled

NEGLIGIBLE = 0.04  # scores below count as 0
HARD = 0.1  # scores above make a pair a hard one
ENOUGH = 10  # hard pairs; a pool with no more is passed over
LONGEST = 100  # steps of a round
EXTRA = 5  # negative pairs for each batch
PATIENCE = 5  # pools in a row without enough hard pairs, after which there is no use in more
_LOOKED_AT = 4  # samples, times the pool's size, among which distinct images are sought


class Mining:
    """The rounds of a run: which pool, how hard its pairs are, which batches go with it.

    Attributes:
        round: number of the current round; 0 before the first.
        first_step, last_step: the current round trains the steps from the one up to the other.
        first_batch: number in the stream of the first batch of `first_step`.
        hard: how many of the pool's pairs are hard.
        empty: rounds in a row without enough of them.
    """

    def __init__(
        self, stream: PairSource, *, size: int, pool: int, batch: int, accumulate: int, seed: int
    ) -> None:
        """
        Args:
            stream: images are the plain sources of its samples.
            size: side of the images in training, pixels.
            pool: images of a pool, at most.
            batch: samples of a batch.
            accumulate: batches of a step.
            seed: seeds what is drawn.
        """
        self.stream, self.size, self.pool, self.seed = stream, size, pool, seed
        self.batch, self.accumulate = batch, accumulate
        self.round = self.first_step = self.last_step = self.first_batch = self.hard = 0
        self.empty = 0
        self.numbers: list[int] = []  # of the samples whose sources are the pool
        self.scores = torch.zeros(0)  # of all pairs, (0, 1), (0, 2), ..., (1, 2), ...
        self._images: Tensor | None = None

    @property
    def dry(self) -> bool:
        """Whether no hard pairs are found any more."""
        return self.empty >= PATIENCE

    def next_round(
        self, matcher: Matcher, step: int, at_once: int, *,
        autocast: Callable[[], AbstractContextManager[Any]], stop: Callable[[], bool],
        progress: Callable[[int, int], None],
    ) -> bool:  # fmt: skip
        """Draw a pool, score its pairs and plan the steps from `step` on.

        Args:
            matcher: scores the pairs.
            step: first step of the round.
            at_once: pairs matched at a time.
            autocast: context of the matcher's precision.
            stop: whether to give up; then nothing has changed, and the same round is next again.
            progress: told how many pairs are scored, of how many.

        Returns:
            False after giving up.

        Raises:
            ValueError: fewer than two different images were found.
        """
        first = self.batch_of(self.last_step)
        numbers, images, end = _draw_pool(
            self.stream, first * self.batch, self.pool, self.size, stop
        )
        if stop():
            return False
        pairs = len(numbers) * (len(numbers) - 1) // 2
        parts = []
        for part in _score_pairs(matcher, images, at_once, autocast):
            parts.append(part)
            progress(sum(map(len, parts)), pairs)
            if stop():
                return False
        self.scores, self.numbers, self._images = torch.cat(parts), numbers, images
        self.round += 1
        self.hard = int((self.scores > HARD).sum())
        steps = min(self.hard, LONGEST) if self.hard > ENOUGH else 0
        self.empty = 0 if steps else self.empty + 1
        # The pool's samples are held out: the round's batches come after them.
        self.first_batch = -(-end // self.batch)
        self.first_step, self.last_step = step, step + steps
        return True

    def batch_of(self, step: int) -> int:
        """Number in the stream of a step's first batch."""
        return self.first_batch + (step - self.first_step) * self.accumulate

    def extra(self, batch: int) -> Images:
        """The negative pairs that go with a batch of the stream, drawn in proportion to score."""
        chosen = self._drawn(batch)
        sources, targets = torch.triu_indices(len(self.numbers), len(self.numbers), 1)[:, chosen]
        if self._images is None:  # after a resume
            pairs = filter(None, map(self.stream.pair, self.numbers))
            self._images = _stacked(pairs, self.size)
        return self._images[sources], self._images[targets]

    def extra_numbers(self, batch: int) -> list[int]:
        """Numbers of the samples whose sources are in these pairs."""
        pairs = torch.triu_indices(len(self.numbers), len(self.numbers), 1)[:, self._drawn(batch)]
        return [self.numbers[index] for index in pairs.flatten().tolist()]

    def _drawn(self, batch: int) -> Tensor:
        rng = np.random.default_rng([self.seed, 2, self.round, batch])
        weights = self.scores.double().numpy()
        return torch.from_numpy(rng.choice(len(weights), EXTRA, p=weights / weights.sum()))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the pool's images are read anew."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        for name in _STATE:
            setattr(self, name, state[name])
        self._images = None


_STATE = (
    "round", "first_step", "last_step", "first_batch", "hard", "empty", "numbers", "scores"
)  # fmt: skip


def _draw_pool(
    stream: PairSource, first: int, count: int, size: int, stop: Callable[[], bool]
) -> tuple[list[int], Tensor, int]:
    """Different source images among the samples from `first` on.

    Returns:
        Numbers of their samples, the images (N, 3, size, size) uint8, and the first number that was
        not looked at.
    """
    seen: dict[str, int] = {}
    images = []
    number = first
    while len(seen) < count and number < first + _LOOKED_AT * count and not stop():
        if pair := stream.pair(number):
            image = _origin(pair, stream, number)
            if image not in seen:
                seen[image] = number
                images.append(_prepared(pair, size))
        number += 1
    if len(seen) < 2 and not stop():
        raise ValueError(
            f"{number - first} samples have {len(seen)} different source image; hard negatives "
            "need at least two: train on pairs of more images"
        )
    return list(seen.values()), torch.stack(images) if images else torch.zeros(0), number


def _origin(pair: Pair, stream: PairSource, number: int) -> str:
    """Which photograph a pair's source is."""
    key = image_key(pair.objects[0].segment) if pair.objects else None
    if key is None:
        raise ValueError(
            f"{stream.name(number)} does not say which image its source is; hard negatives need "
            "that: generate the dataset again"
        )
    return key


def _stacked(pairs: Iterable[Pair], size: int) -> Tensor:
    return torch.stack([_prepared(pair, size) for pair in pairs])


def _prepared(pair: Pair, size: int) -> Tensor:
    """A pair's source as the matcher takes it, uint8 (3, size, size)."""
    return torch.from_numpy(geometry.resize(pair.source, size, size)).permute(2, 0, 1)


@torch.no_grad()
def _score_pairs(
    matcher: Matcher, images: Tensor, at_once: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Iterable[Tensor]:  # fmt: skip
    """Scores of all pairs of images, some at a time: the sum of the two mean masks."""
    device = next(matcher.parameters()).device
    matcher.eval()
    with autocast():
        encoded = Encoding.cat(
            [matcher.encode(scaled(part.to(device))) for part in images.split(at_once)]
        )
    sources, targets = torch.triu_indices(len(images), len(images), 1, device=device)
    for a, b in zip(sources.split(at_once), targets.split(at_once), strict=True):
        with autocast():
            matches = matcher.match(encoded.at(a), encoded.at(b))
        source, target = (
            side.mask_logits.float().sigmoid().mean(dim=(1, 2)) for side, _ in matches.both()
        )
        score = source + target
        yield torch.where(score < NEGLIGIBLE, 0, score).cpu()
