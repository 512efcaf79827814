"""Training a matcher: what it minimises, how it is scored, what is kept of it."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from segswap.batches.stream import Stream
from segswap.data.pair import Pair, share_nothing
from segswap.evaluation.metrics import Scores, mean_scores, score_negative, score_pair
from segswap.files.storage import write_atomically
from segswap.matchers.base import Batch, Matcher
from segswap.models.hub import SCORES
from segswap.models.model import Model
from segswap.training.mining import Mining
from segswap.training.objective import Objective
from segswap.training.task import Observer, Row, Task


class MatcherTask(Task):
    """See Task.

    Attributes:
        val: pairs that are scored on.
    """

    scores = tuple(Scores.__dataclass_fields__)

    def __init__(
        self, model: Model, stream: Stream, val: list[Pair], *, weights: dict[str, float],
        negatives: int, mining: Mining | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            model: whose matcher is trained.
            stream: the training data.
            val: pairs to score on; without any, the last weights count as the best.
            weights: of the loss's terms, by name; 0 switches one off.
            negatives: pairs that share nothing for each pair of a batch.
            mining: finds hard negatives of the same stream; None trains without.
        """
        matcher = model.matcher.to(memory_format=torch.channels_last)
        self._settings, self._device = model.settings, model.device
        self._mining, self._negatives = mining, negatives
        self.network, self.samples, self.val = matcher, stream, val
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
        """Mean scores on the val pairs, and on about 8 pairs of images that share nothing."""
        if not self.val:
            return {}
        model, stride = self.model_of(averaged), max(1, len(self.val) // 8)
        scores = []
        for number, pair in enumerate(self.val):
            scores.append(score_pair(model.predict(pair.source, pair.target), pair))
            if number % stride:
                continue
            others = (*self.val[number + 1 :], *self.val[:number])
            if other := next((other for other in others if share_nothing(pair, other)), None):
                scores.append(score_negative(model.predict(pair.source, other.target)))
        return vars(mean_scores(scores))

    def quality(self, row: Row) -> float | None:
        """Mask IoU plus PCK@5%."""
        if "val_mask_iou" not in row:
            return None
        return float(row["val_mask_iou"] + row["val_pck_5"])

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
