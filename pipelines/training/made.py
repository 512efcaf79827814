"""Pairs made in a worker process when they are wanted, as training samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from generators.composition.compose import RejectedDraw
from generators.composition.recipe import Look
from generators.sources.index import Index, Pool
from generators.styles.style import Styler
from pipelines.command import cli
from pipelines.command.messages import LOG
from pipelines.command.tasks import run_on_ray
from pipelines.generation.config import SPLITS, GenerateConfig
from pipelines.generation.dataset import WORK, described
from pipelines.generation.inputs import prepare, split_inputs, styler_of
from pipelines.generation.pairs import compose
from segswap.batches.stream import GENERATED
from segswap.data.pair import Pair
from segswap.files import stopwatch, storage
from segswap.matchers.base import Batch

_NAMED = 5  # unusable inputs that are named; of more, the count is said


@dataclass(frozen=True)
class Source:
    """What a worker makes the pairs of one split from; it maps the arrays from the object store.

    Attributes:
        config: the settings, as segswap-generate's.
        pool, look: see generate_pair; the styler, which holds a network, is each worker's own.
        split: train or val.
    """

    config: GenerateConfig
    pool: Pool
    look: Look
    split: str

    def pair(
        self, index: int, broken: dict[str, str] | None = None
    ) -> tuple[Pair, np.random.Generator]:
        """A pair of the split as segswap-generate composes it, without styled versions.

        Args:
            index: the pair's index in the split.
            broken: takes up unusable images, with the reasons.

        Returns:
            The pair, and its generator, from which its styles are yet to be drawn.
        """

        def note(rejection: RejectedDraw) -> None:
            if rejection.image and broken is not None:
                broken[rejection.image["image"]] = rejection.image["reason"]

        return compose(self.config, self.pool, self.look, self.split, index, note)


def prepared(config: GenerateConfig) -> dict[str, Source]:
    """The sources of the train split and, where it can be made, of the val split."""
    try:
        return _sources(config)
    except (ValueError, RuntimeError):
        # Either the images are too few to be parted, or there is more wrong, which is raised now.
        sources = _sources(replace(config, amount=replace(config.amount, val_pairs=0)))
        LOG.warning("too few images to hold some out: there are no validation pairs")
        return sources


def _sources(config: GenerateConfig) -> dict[str, Source]:
    run = partial(run_on_ray, workers=config.running.workers)
    skipped = prepare(config, cli.as_dict(config), storage.join(config.out, WORK), run)
    wanted = (config.amount.pairs, config.amount.val_pairs)
    sources = {}
    for split in (split for split, pairs in zip(SPLITS, wanted, strict=True) if pairs):
        pool, look = split_inputs(config, split)
        sources[split] = Source(config, _in_memory(pool), replace(look, styler=None), split)
        sources[split].pair(0)  # where no draw is acceptable, this says so
    for entry in skipped[:_NAMED]:
        LOG.warning("left out: %s", described(entry))
    if len(skipped) > _NAMED:
        LOG.warning("left out: %d more of the inputs", len(skipped) - _NAMED)
    return sources


def _in_memory(pool: Pool) -> Pool:
    """A pool with plain arrays, which reach workers without being copied; mapped files do not."""

    def plain(index: Index) -> Index:
        return replace(index, arrays={k: np.asarray(v) for k, v in index.arrays.items()})

    index = plain(pool.index)
    behind = index if pool.backgrounds is pool.index else plain(pool.backgrounds)
    return replace(pool, index=index, backgrounds=behind)


class MadePairs:
    """Samples of pairs that are made when they are wanted: sample n is pair n of the train split
    that segswap-generate makes of the same inputs, settings and seed, each side plain or styled,
    and augmented: all of it drawn from (seed, n) alone.

    Attributes:
        skipped: unusable images, with what is wrong with them.
    """

    truth = GENERATED

    def __init__(self, source: Source, sample: Callable[..., Batch]) -> None:
        """
        Args:
            source: of the train split.
            sample: makes a sample of a pair and a random generator, as `make_sample`.
        """
        self.source, self.sample = source, sample
        self.skipped: dict[str, str] = {}

    def __getitem__(self, number: int) -> Batch:
        """A sample: a Batch without the batch dimension."""
        return self.together([number])[0]

    def together(self, numbers: Sequence[int]) -> list[Batch]:
        """Some samples, restyled together."""
        config, broken = self.source.config, dict[str, str]()
        made = [self.source.pair(number, broken) for number in numbers]
        self.skipped |= {image: f"{image}, {reason}" for image, reason in broken.items()}
        rngs = [np.random.default_rng([config.amount.seed, 1, number]) for number in numbers]
        pairs = [pair for pair, _ in made]
        if styler := styler_of(config):
            pairs = _styled_sides(pairs, styler, [rng for _, rng in made], rngs)
            self.skipped |= {name: f"{name}, {why}" for name, why in styler.broken.items()}
        stopwatch.read()  # nobody asks for the stages' times
        return [self.sample(pair, rng) for pair, rng in zip(pairs, rngs, strict=True)]

    def plain(self) -> Batch:
        """A sample as large as any."""
        return self.sample(self.source.pair(0)[0], np.random.default_rng(0))

    def pair(self, number: int) -> Pair:
        """The pair behind a sample, without styled versions."""
        return self.source.pair(number)[0]

    def name(self, number: int) -> str:
        """See Stream.name."""
        return f"live pair {number} (seed {self.source.config.amount.seed})"


def _styled_sides(
    pairs: Sequence[Pair], styler: Styler, rngs: Sequence[np.random.Generator],
    sample_rngs: Sequence[np.random.Generator],
) -> list[Pair]:  # fmt: skip
    """Pairs of which each side is styled with a probability of 0.5, in place of the plain image.

    Draws what style_pairs draws from the pairs' generators, and then choose_styled from the
    samples', but restyles only what is chosen.
    """
    changed = list(pairs)
    for first in range(0, len(pairs), styler.pairs_at_once):
        chosen = []
        for place in range(first, min(first + styler.pairs_at_once, len(pairs))):
            for side in ("source", "target"):
                choice = styler.draw(rngs[place])
                if sample_rngs[place].random() < 0.5:
                    chosen.append((place, side, choice))
        images = [getattr(pairs[place], side) for place, side, _ in chosen]
        styled = styler.restyle(images, [choice for *_, choice in chosen])
        for (place, side, _), image in zip(chosen, styled, strict=True):
            sides: dict[str, Any] = {side: image}
            changed[place] = replace(changed[place], **sides)
    return changed
