"""Training a matcher: what it minimises, how it is scored, what is kept of it."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from segswap.batches.held_out import KindPair
from segswap.batches.stream import Stream
from segswap.data.pair import Pair, share_nothing
from segswap.evaluation.kinds import score_kind_pair
from segswap.evaluation.metrics import Scores, mean_scores, score_negative, score_pair
from segswap.files.storage import write_atomically
from segswap.matchers.base import Batch, Matcher
from segswap.matchers.confidence import calibrate
from segswap.models.hub import SCORES
from segswap.models.model import Model
from segswap.training.calibration import calibration_pairs
from segswap.training.mining import Mining
from segswap.training.objective import Objective
from segswap.training.task import Observer, Row, Task

KIND_SCORES = ("kind_iou", "kind_pck_10")  # as `score_kind_pair` gives them


class MatcherTask(Task):
    """See Task.

    Attributes:
        val: pairs that are scored on.
        val_kinds: pairs of pictures of one kind that are scored on.
    """

    def __init__(
        self, model: Model, stream: Stream, val: list[Pair], *, weights: dict[str, float],
        negatives: int, mining: Mining | None = None, val_kinds: Sequence[KindPair] = (),
    ) -> None:  # fmt: skip
        """
        Args:
            model: whose matcher is trained.
            stream: the training data.
            val: pairs to score on; without any, of either sort, the last weights count as the best.
            weights: of the loss's terms, by name; 0 switches one off.
            negatives: pairs that share nothing for each pair of a batch.
            mining: finds hard negatives of the same stream; None trains without.
            val_kinds: pairs of pictures of one kind to score on.
        """
        matcher = model.matcher.to(memory_format=torch.channels_last)
        self._settings, self._device = model.settings, model.device
        self._mining, self._negatives = mining, negatives
        self.network, self.samples, self.val, self.val_kinds = matcher, stream, val, val_kinds
        self.scores = (*Scores.__dataclass_fields__, *(KIND_SCORES if val_kinds else ()))
        self.objective = Objective(matcher, weights, negatives)
        known = [term for term in matcher.terms if term.needs <= stream.truth]
        self.terms = tuple(term.name for term in known)
        # What only a loss that is not computed would reach gets no gradient.
        self.unused = len(known) < len(matcher.terms) or not all(weights.values())

    @property
    def exhausted(self) -> bool:
        """Whether no hard negatives are found any more."""
        return self._mining is not None and self._mining.dry

    def inputs(self, batch: Batch, number: int) -> tuple[Any, ...]:
        """The batch, and the hard negatives that go with it."""
        on_device = batch.to(self._device)
        if self._mining is None:
            return (on_device,)
        sources, targets = self._mining.extra(number)
        return on_device, (sources.to(self._device), targets.to(self._device))

    def model_of(self, averaged: nn.Module) -> Model:
        """The model with the averaged weights."""
        return Model(cast(Matcher, averaged), self._settings)

    def save(self, averaged: nn.Module, folder: Path, row: Row) -> None:
        """Write the model, and the scores that its card shows."""
        self.model_of(averaged).save(folder)
        scores = {k: v for k, v in row.items() if k == "step" or k.startswith("val_")}
        write_atomically(folder / SCORES, json.dumps(scores, indent=1).encode())

    def evaluate(self, averaged: nn.Module) -> dict[str, float]:
        """Mean scores on the val pairs, on about 8 pairs of images that share nothing, and on the
        pairs of one kind. A matcher whose masks need that is calibrated on these pairs before.
        """
        model = self.model_of(averaged)
        calibrate(model.matcher, calibration_pairs(model, self.val, self.val_kinds))
        return (self._pair_scores(model) if self.val else {}) | self._kind_scores(model)

    def _pair_scores(self, model: Model) -> dict[str, float]:
        stride, scores = max(1, len(self.val) // 8), []
        for number, pair in enumerate(self.val):
            scores.append(score_pair(model.predict(pair.source, pair.target), pair))
            if number % stride:
                continue
            others = (*self.val[number + 1 :], *self.val[:number])
            if other := next((other for other in others if share_nothing(pair, other)), None):
                scores.append(score_negative(model.predict(pair.source, other.target)))
        return vars(mean_scores(scores))

    def _kind_scores(self, model: Model) -> dict[str, float]:
        """Means over the pairs of one kind that have a score; without those that none has."""
        scores = [
            score_kind_pair(model.predict(pair.source.image, pair.target.image), pair)
            for pair in self.val_kinds
        ]
        told = {
            name: [value for value in column if not math.isnan(value)]
            for name, column in zip(KIND_SCORES, zip(*scores, strict=True), strict=False)
        }
        return {name: sum(values) / len(values) for name, values in told.items() if values}

    def quality(self, row: Row) -> float | None:
        """Mask IoU plus PCK@5% of the val pairs; of pairs of one kind mask IoU plus PCK@10%, or
        twice the one that there is; the mean of both sums where there are both.
        """
        sums = []
        if "val_mask_iou" in row:
            sums.append(float(row["val_mask_iou"] + row["val_pck_5"]))
        if kinds := [float(row[f"val_{n}"]) for n in KIND_SCORES if f"val_{n}" in row]:
            sums.append(2 * sum(kinds) / len(kinds))
        return sum(sums) / len(sums) if sums else None

    def next_round(
        self, step: int, steps: int, *, autocast: Callable[[], AbstractContextManager[Any]],
        stop: Callable[[], bool], observer: Observer,
    ) -> int:  # fmt: skip
        """With hard negatives, score pools until one has enough of them; without, all is one."""
        mining = self._mining
        if mining is None:
            return steps
        while step >= mining.last_step and not mining.dry:
            if not mining.next_round(
                cast(Matcher, self.network), step, mining.batch * (1 + self._negatives),
                autocast=autocast, stop=stop, progress=observer.preparing,
            ):  # fmt: skip
                break
            count = mining.last_step - mining.first_step
            observer.round(
                f"pool {mining.round}: {mining.hard} hard pairs of {len(mining.numbers)} images, "
                + (f"{count} steps with them" if count else "too few to train on")
            )
        return min(mining.last_step, steps)

    def first_batch(self, step: int, accumulate: int) -> int:
        """See Task.first_batch; a round's batches come after its pool's samples."""
        return self._mining.batch_of(step) if self._mining else step * accumulate

    def further_samples(self, batches: range) -> dict[str, list[int]]:
        """The hard negatives' samples."""
        if self._mining is None:
            return {}
        numbers = [n for batch in batches for n in self._mining.extra_numbers(batch)]
        return {"hard_negatives": numbers}

    def state(self) -> dict[str, Any]:
        """See Task.state."""
        return {"mining": self._mining.state() if self._mining else None}

    def restore(self, state: dict[str, Any]) -> None:
        """See Task.restore."""
        if self._mining:
            self._mining.restore(state["mining"])
