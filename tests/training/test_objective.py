"""What is minimised: which terms are computed, what is hidden, which pairs are negatives."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import small_config, small_dataset

from pipelines.train.job import train
from segswap.batches.stream import PairStream
from segswap.matchers import CorrelationMatcher, Matches, TransformerMatcher, losses
from segswap.matchers.base import Batch
from segswap.training.checkpoints import load_state
from segswap.training.objective import Objective

ALL = dict.fromkeys(("mask", "transfer", "corr", "correlation"), 1.0)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Four samples at 64 px with cells of 8 px."""
    dataset = small_dataset(tmp_path_factory.mktemp("made") / "pairs")
    stream = PairStream((dataset,), "train", size=64, stride=8, augment=False)
    return next(iter(stream.batches(4, 0, 1)))


class Noted:
    """A correlation matcher whose calls are noted."""

    def __init__(self, hide: float = 0.0) -> None:
        torch.manual_seed(0)
        self.matcher = CorrelationMatcher()
        self.matcher.hide = hide  # type: ignore[misc]
        self.encoded: list[int] = []
        self.matched: list[tuple[Tensor, Tensor, Tensor | None]] = []
        encode, match = self.matcher.encode, self.matcher.match

        def noted_encode(images: Tensor) -> Tensor:
            self.encoded.append(len(images))
            return encode(images)

        def noted_match(source: Tensor, target: Tensor, visible: Tensor | None = None) -> Matches:
            self.matched.append((source, target, visible))
            return match(source, target, visible)

        self.matcher.encode = noted_encode  # type: ignore[method-assign]
        self.matcher.match = noted_match  # type: ignore[method-assign]


def _noted(names: list[str], name: str, loss: Any, *arguments: Any) -> Tensor:
    names.append(name)
    return loss(*arguments)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the losses that are computed from here on."""
    names: list[str] = []
    for name in ("mask_loss", "transfer_loss", "correspondence_loss", "correlation_loss"):
        monkeypatch.setattr(losses, name, partial(_noted, names, name, getattr(losses, name)))
    return names


@pytest.mark.parametrize(
    ("term", "loss"),
    [
        ("mask", "mask_loss"), ("transfer", "transfer_loss"), ("corr", "correspondence_loss"),
        ("correlation", "correlation_loss"),
    ],
)  # fmt: skip
def test_a_term_of_weight_zero_is_not_computed(
    term: str, loss: str, batch: Batch, computed: list[str]
) -> None:
    noted = Noted()
    terms = Objective(noted.matcher, {**ALL, term: 0.0}, negatives=1)(batch)
    assert set(terms) == {*ALL, "loss"} - {term}
    assert len(computed) == 3
    assert loss not in computed
    # Negatives serve the mask loss alone.
    assert len(noted.matched) == (1 if term == "mask" else 2)


def test_loss_is_the_weighted_sum(batch: Batch) -> None:
    weights = {"mask": 2.0, "transfer": 0.5, "corr": 0.1, "correlation": 3.0}
    terms = Objective(Noted().matcher, weights, negatives=1)(batch)
    expected = sum(weights[name] * float(terms[name].detach()) for name in weights)
    assert float(terms["loss"].detach()) == pytest.approx(expected, rel=1e-5)


def test_images_are_encoded_once_and_shifted_against_themselves(batch: Batch) -> None:
    noted = Noted()
    Objective(noted.matcher, ALL, negatives=2)(batch)
    assert noted.encoded == [4, 4]
    (source, target, _), (sources, targets, visible) = noted.matched
    assert torch.equal(sources, torch.cat([source, source]))
    assert torch.equal(targets, torch.cat([target.roll(1, 0), target.roll(2, 0)]))
    assert visible is None


def test_extra_negatives_join_the_mask_losss_mean_and_no_other_term(batch: Batch) -> None:
    noted = Noted()
    objective = Objective(noted.matcher, ALL, negatives=1)
    plain = objective(batch)
    extra = (batch.source[[0, 2, 3]], batch.target[[1, 3, 0]])
    more = objective(batch, extra)
    assert noted.encoded[2:] == [7, 7]
    for name in ("transfer", "corr", "correlation"):
        assert torch.allclose(more[name], plain[name], rtol=1e-4)
    # The same as of a slow plain mean over positives, shifted and extra pairs.
    source, target = (noted.matcher.encode(images.float() / 255)
                      for images in (batch.source, batch.target))  # fmt: skip
    pairs = [(n, (n - 1) % 4) for n in range(4)] + [(0, 1), (2, 3), (3, 0)]
    empty = noted.matcher.match(source[[a for a, _ in pairs]], target[[b for _, b in pairs]])
    matches = noted.matcher.match(source, target)
    expected = losses.mask_loss(matches, batch, empty, noted.matcher.positive_weight)
    assert torch.allclose(more["mask"], expected, rtol=1e-4)
    assert not torch.allclose(more["mask"], plain["mask"], rtol=1e-3)


def test_some_pairs_of_a_batch_have_the_rest_of_their_target_hidden(batch: Batch) -> None:
    torch.manual_seed(0)
    noted = Noted(hide=0.5)
    objective = Objective(noted.matcher, {**ALL, "mask": 0.0}, negatives=0)
    hidden = 0
    masks = [objective._visible(batch) for _ in range(50)]
    for visible in masks:
        assert visible is not None
        for sample, mask in zip(visible, batch.target_mask > 0, strict=True):
            assert bool(sample.all()) or torch.equal(sample, mask)
            hidden += not bool(sample.all())
    assert 70 < hidden < 130  # of 200
    mixed = [v for v in masks if v is not None and 0 < v.flatten(1).all(1).sum() < 4]
    assert len(mixed) > 30
    objective(batch)
    assert noted.matched[-1][2] is not None


def test_a_pair_whose_target_is_whole_is_matched_as_without_hiding(batch: Batch) -> None:
    torch.manual_seed(0)
    matcher = TransformerMatcher("tiny", "resnet18", freeze_backbone=False).eval()
    grid = torch.rand(2, 4, 4) < 0.4
    grid[0] = True
    with torch.no_grad():
        source, target = (matcher.encode(images[:2].float() / 255)
                          for images in (batch.source, batch.target))  # fmt: skip
        mixed, plain = matcher.match(source, target, grid), matcher.match(source, target)
    assert torch.allclose(mixed.source_logits[0], plain.source_logits[0], atol=1e-5)
    assert not torch.allclose(mixed.source_logits[1], plain.source_logits[1], atol=1e-4)


def test_nothing_is_hidden_for_matchers_that_want_nothing_hidden(batch: Batch) -> None:
    assert Objective(Noted(hide=0.0).matcher, ALL, negatives=0)._visible(batch) is None


@pytest.mark.slow
def test_compiled_training_equals_training(tmp_path: Path) -> None:
    config = small_config(small_dataset(tmp_path / "pairs"), tmp_path, steps=2, every=1)
    rows = []
    for compiled in (False, True):
        out = tmp_path / f"compiled-{compiled}"
        assert train(replace(config, out=str(out), compile=compiled)) == 0
        rows.append(load_state(out)["history"])
    for plain, fast in zip(*rows, strict=True):
        assert fast["loss"] == pytest.approx(plain["loss"], rel=1e-3)
        assert fast["gradient"] == pytest.approx(plain["gradient"], rel=1e-2)
