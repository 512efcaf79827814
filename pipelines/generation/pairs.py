"""Pairs of a split by their numbers: composed, restyled, and what draws are lost."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from generators.composition.compose import RejectedDraw, generate_pair
from generators.composition.recipe import Look
from generators.sources.index import Pool
from generators.styles.style import Styler, style_pairs
from pipelines.generation.config import SPLITS, GenerateConfig
from pipelines.generation.inputs import split_inputs
from segswap.data.pair import Pair
from segswap.files.stopwatch import stage


@dataclass(frozen=True)
class Losses:
    """What draws came to nothing by.

    Attributes:
        rejected: draws by reason.
        broken: unusable images and style pictures by kind and name, each with its entry for the
            manifest.
    """

    rejected: Counter[str] = field(default_factory=Counter)
    broken: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def count(self, rejection: RejectedDraw) -> None:
        """Take a draw that was not acceptable into account."""
        self.rejected[str(rejection)] += 1
        if rejection.image:
            self.broken["", rejection.image["image"]] = rejection.image

    def count_styles(self, styler: Styler) -> None:
        """Take the style pictures that could not be read into account."""
        for name, reason in styler.broken.items():
            entry = {"image": name, "reason": reason, "kind": "style", "count": 1}
            self.broken["style", name] = entry


def make_pairs(config: GenerateConfig, split: str, indices: range, losses: Losses) -> list[Pair]:
    """The pairs of a split of these indices, composed one by one and restyled together.

    Raises:
        RuntimeError: see `compose`.
    """
    pool, look = split_inputs(config, split)
    plain = replace(look, styler=None)
    with stage("compose"):
        drawn = [compose(config, pool, plain, split, index, losses.count) for index in indices]
    pairs, rngs = [pair for pair, _ in drawn], [rng for _, rng in drawn]
    if look.styler is None:
        return pairs
    styled = style_pairs(pairs, look.styler, rngs)
    losses.count_styles(look.styler)
    return styled


def compose(
    config: GenerateConfig, pool: Pool, look: Look, split: str, index: int,
    rejected: Callable[[RejectedDraw], None],
) -> tuple[Pair, np.random.Generator]:  # fmt: skip
    """A pair of a split, drawn from (seed, split, index) alone.

    Args:
        pool, look: see generate_pair; without a styler.
        rejected: told of every draw that was not acceptable.

    Returns:
        The pair, and its generator, from which its styles are yet to be drawn.

    Raises:
        RuntimeError: no draw was acceptable.
    """
    recipes = {"1": [config.one], "2": [config.two], "mix": [config.one, config.two]}
    key = (SPLITS.index(split), index)
    rng = np.random.default_rng([config.amount.seed, *key])
    pair = generate_pair(
        pool, recipes[config.composition.objects], rng, look=look, index=index, key=key,
        rejected=rejected,
    )  # fmt: skip
    return pair, rng
