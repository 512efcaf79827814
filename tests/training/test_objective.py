"""What is minimised: which terms are computed, what is hidden, which pairs are negatives."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from made_matches import answers
from torch import Tensor
from training_runs import small_config, small_dataset

from pipelines.generation import job
from pipelines.generation.config import Amount, GenerateConfig, Inputs, Running
from pipelines.training.job import train
from segswap.batches.stream import PairStream
from segswap.matchers import losses
from segswap.matchers.base import Answers, Batch, BatchSide, Matches, Term
from segswap.matchers.correlation.correlation import CorrelationMatcher
from segswap.matchers.encoding import Encoding
from segswap.matchers.transformer import TransformerMatcher
from segswap.training.checkpoints import load_state
from segswap.training.objective import Objective, negative_targets

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
        self.matched: list[tuple[Encoding, Encoding, Tensor | None]] = []
        encode, match = self.matcher.encode, self.matcher.match

        def noted_encode(images: Tensor) -> Encoding:
            self.encoded.append(len(images))
            return encode(images)

        def noted_match(
            source: Encoding, target: Encoding, visible: Tensor | None = None
        ) -> Matches:
            self.matched.append((source, target, visible))
            return match(source, target, visible)

        self.matcher.encode = noted_encode  # type: ignore[method-assign]
        self.matcher.match = noted_match  # type: ignore[method-assign]


@pytest.mark.parametrize("term", ALL)
def test_a_term_of_weight_zero_is_not_computed(
    term: str, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, computed = Noted(), []

    def counted(one: Term) -> Term:
        def compute(answers: Answers) -> Tensor:
            computed.append(one.name)
            return one.compute(answers)

        return replace(one, compute=compute)

    terms = tuple(map(counted, CorrelationMatcher.terms))
    monkeypatch.setattr(CorrelationMatcher, "terms", terms)
    found = Objective(noted.matcher, {**ALL, term: 0.0}, negatives=1)(batch)
    assert set(found) == {*ALL, "loss"} - {term}
    assert sorted(computed) == sorted(ALL.keys() - {term})
    # Negatives serve the mask loss alone.
    assert len(noted.matched) == (1 if term == "mask" else 2)


def test_terms_of_what_a_batch_does_not_know_are_left_out(batch: Batch) -> None:
    weights = {**ALL, "keypoints": 1.0}
    assert set(Objective(Noted().matcher, weights, 1)(batch)) == {*ALL, "loss"}
    bare = Batch(*(side._replace(positions=None, valid=None) for side in batch))
    assert set(Objective(Noted().matcher, weights, 1)(bare)) == {"mask", "transfer", "loss"}
    with pytest.raises(ValueError, match="the losses need corr: positions"):
        Objective(Noted().matcher, {"corr": 1.0}, 1)(bare)


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
    for name in source:
        assert torch.equal(sources[name], source[name].repeat(2, *[1] * (source[name].ndim - 1)))
        rolled = [target[name].roll(1, 0), target[name].roll(2, 0)]
        assert torch.equal(targets[name], torch.cat(rolled))
    assert visible is None


def test_extra_negatives_join_the_mask_losss_mean_and_no_other_term(batch: Batch) -> None:
    noted = Noted()
    objective = Objective(noted.matcher, ALL, negatives=1)
    plain = objective(batch)
    extra = (batch.source.image[[0, 2, 3]], batch.target.image[[1, 3, 0]])
    more = objective(batch, extra)
    assert noted.encoded[2:] == [7, 7]
    for name in ("transfer", "corr", "correlation"):
        assert torch.allclose(more[name], plain[name], rtol=1e-4)
    # The same as of a slow plain mean over positives, shifted and extra pairs.
    source, target = (noted.matcher.encode(side.image.float() / 255) for side in batch)
    pairs = [(n, (n - 1) % 4) for n in range(4)] + [(0, 1), (2, 3), (3, 0)]
    empty = noted.matcher.match(source.at([a for a, _ in pairs]), target.at([b for _, b in pairs]))
    matches = noted.matcher.match(source, target)
    expected = losses.mask_loss(answers(matches, batch, empty), positive_weight=3.0)
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
        for sample, mask in zip(visible, batch.target.mask > 0, strict=True):
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
        source, target = (matcher.encode(side.image[:2].float() / 255) for side in batch)
        mixed, plain = matcher.match(source, target, grid), matcher.match(source, target)
    assert torch.allclose(mixed.source.mask_logits[0], plain.source.mask_logits[0], atol=1e-5)
    assert not torch.allclose(mixed.source.mask_logits[1], plain.source.mask_logits[1], atol=1e-4)


def test_nothing_is_hidden_for_matchers_that_want_nothing_hidden(batch: Batch) -> None:
    assert Objective(Noted(hide=0.0).matcher, ALL, negatives=0)._visible(batch) is None


def numbered(sources: list[list[int]], targets: list[list[int]], labels: object = None) -> Batch:
    """A batch whose images show photographs of these numbers."""
    sides = [
        BatchSide(torch.zeros(len(shown), 3, 8, 8, dtype=torch.uint8), torch.tensor(shown))
        for shown in (sources, targets)
    ]
    if labels is not None:
        sides = [
            side._replace(labels=torch.tensor(known, dtype=torch.int8))
            for side, known in zip(sides, labels, strict=True)
        ]
    return Batch(*sides)


def test_negatives_are_sought_among_pairs_without_a_photograph_in_common() -> None:
    # 0 and 2 show photograph 1; the target of 3 shows it behind its object.
    batch = numbered([[1, 0], [2, 0], [1, 0], [4, 0]], [[1, 5], [2, 6], [1, 7], [4, 1]])
    targets, unrelated = negative_targets(batch, 1)
    assert targets.tolist() == [[1, 0, 1, 2]]
    assert unrelated.all()
    targets, unrelated = negative_targets(batch, 3)
    assert targets.shape == (3, 4)
    assert unrelated.sum(0).tolist() == [1, 3, 1, 3]
    for source in range(4):
        for target, known in zip(targets[:, source], unrelated[:, source], strict=True):
            common = set(batch.source.shown[source].tolist()) & set(
                batch.target.shown[target].tolist()
            )
            assert bool(known) == (not common - {0})


def test_where_the_photographs_are_not_known_nothing_is_a_negative() -> None:
    _, unrelated = negative_targets(numbered([[0], [0]], [[0], [0]]), 1)
    assert not unrelated.any()


def test_kinds_that_both_images_may_show_are_no_negatives() -> None:
    # Dog; cat and perhaps a dog; cat and surely no dog.
    labels = [[1, 0], [-1, 1], [0, 1]]
    batch = numbered([[1], [2], [3]], [[4], [5], [6]], (labels, labels))
    assert batch.unrelated().tolist() == [
        [False, False, True], [False, False, False], [True, False, False]
    ]  # fmt: skip


def test_kinds_unknown_in_both_images_stand_in_no_negatives_way() -> None:
    """Of two sources one lists all of its kinds; the other's further kind nobody looked for."""
    labels = [[1, 0, -1], [0, 1, -1], [-1, -1, 1]]
    batch = numbered([[1], [2], [3]], [[4], [5], [6]], (labels, labels))
    assert batch.unrelated(kinds=True).tolist() == [
        [False, True, False], [True, False, False], [False, False, False]
    ]  # fmt: skip


def test_generated_pairs_share_nothing_by_their_photographs_unless_kinds_are_told_apart() -> None:
    # Two generated pairs, whose kinds nobody knows, beside one that shows no kind at all.
    labels = [[-1, -1], [-1, -1], [0, 0]]
    batch = numbered([[1], [2], [3]], [[4], [1], [6]], (labels, labels))
    unknown = [True, False, False], [True, True, False], [False, False, True]
    assert batch.unrelated().tolist() == list(map(list, unknown))
    assert batch.unrelated(kinds=True).tolist() == [[False] * 3, [False] * 3, [False, False, True]]
    assert batch.distinct().tolist() == [[True, False, True], [True, True, True], [True] * 3]
    bare = numbered([[1], [2]], [[3], [4]])
    assert not bare.unrelated(kinds=True).any()


def test_negatives_that_share_no_kind_come_before_those_of_other_photographs() -> None:
    labels = [[1, 0], [0, 1], [1, 0], [-1, -1]]
    batch = numbered([[1], [2], [3], [4]], [[1], [2], [3], [3]], (labels, labels))
    targets, unrelated = negative_targets(batch, 2, kinds=True)
    assert targets.T.tolist() == [[1, 3], [0, 2], [1, 0], [2, 1]]
    assert unrelated.T.tolist() == [[True, False], [True, True], [True, False], [False, False]]


class Telling(CorrelationMatcher):
    """Tells the very same thing from another one of its kind."""

    kinds = True

    def match(self, source: Encoding, target: Encoding, visible: Tensor | None = None) -> Matches:
        found = super().match(source, target, visible)
        return Matches(*(replace(side, extra={**side.extra, "same": side.mask_logits})
                         for side, _ in found.both()))  # fmt: skip


def test_other_photographs_are_negatives_of_the_very_same_thing_alone(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Answers] = []

    def noted(answers: Answers) -> Tensor:
        told.append(answers)
        return losses.same_loss(answers)

    terms = (*Telling.terms, Term("same", frozenset({"same"}), noted, "", negatives=True))
    monkeypatch.setattr(Telling, "terms", terms)
    torch.manual_seed(0)
    batch = Batch(*(side._replace(same=side.mask) for side in batch))
    extra = (batch.source.image[[0]], batch.target.image[[1]])
    found = Objective(Telling(), {"mask": 1.0, "same": 1.0}, negatives=1)(batch, extra)
    assert told[0].counted.tolist() == [0] * 5
    assert told[0].counted_same.tolist() == [1] * 5
    torch.manual_seed(0)
    alone = Objective(Telling(), {"mask": 1.0, "same": 1.0}, negatives=0)(batch)
    assert torch.allclose(found["mask"], alone["mask"], rtol=1e-5)
    assert not torch.allclose(found["same"], alone["same"], rtol=1e-3)


def test_what_may_be_shared_is_not_hidden(batch: Batch) -> None:
    unknown = batch.target.mask.clone()
    unknown[:, 0] = torch.nan
    told = Batch(batch.source, batch.target._replace(mask=unknown))
    visible = Objective(Noted(hide=1.0).matcher, ALL, negatives=0)._visible(told)
    assert visible is not None
    assert visible[:, 0].all()
    assert not visible.all()


def test_pairs_of_which_it_is_not_known_do_not_count(batch: Batch) -> None:
    related = Batch(*(side._replace(shown=torch.ones(4, 1, dtype=torch.int64)) for side in batch))
    found = Objective(Noted().matcher, ALL, negatives=2)(related)
    alone = Objective(Noted().matcher, ALL, negatives=0)(batch)
    assert torch.allclose(found["mask"], alone["mask"], rtol=1e-5)


def test_no_negative_of_the_built_in_photographs_shows_the_same_one(tmp_path: Path) -> None:
    job.generate(GenerateConfig(
        str(tmp_path / "pairs"), Amount(pairs=60, size=64, shard_pairs=20), Inputs(demo=True),
        running=Running(0),
    ))  # fmt: skip
    stream = PairStream((str(tmp_path / "pairs"),), "train", size=64, stride=8, augment=False)
    shared, shifted, negatives = 0, 0, 0
    for number, batch in enumerate(stream.batches(6, 0, 10)):
        pairs = [stream.pair(6 * number + place) for place in range(6)]
        sources = [{item.segment["image"] for item in pair.objects} for pair in pairs]
        targets = [
            {pair.background["image"]} | own for pair, own in zip(pairs, sources, strict=True)
        ]
        chosen, unrelated = negative_targets(batch, 2)
        for source, target in zip(*np.nonzero(unrelated.numpy().T), strict=True):
            negatives += 1
            shared += bool(sources[source] & targets[int(chosen[target, source])])
        shifted += sum(bool(sources[n] & targets[n - 1]) for n in range(6))
    assert negatives > 60
    assert shared == 0
    assert shifted > 10  # of 60: what shifting the batch against itself takes for negatives


@pytest.mark.slow
def test_compiled_training_equals_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced, forward and backward; without the C++, which takes PyTorch minutes to make."""
    traced = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", traced)
    config = small_config(small_dataset(tmp_path / "pairs"), tmp_path, steps=2, every=1)
    rows = []
    for compiled in (False, True):
        out = tmp_path / f"compiled-{compiled}"
        assert train(replace(config, out=str(out), compile=compiled)) == 0
        rows.append(load_state(out)["history"])
    for plain, fast in zip(*rows, strict=True):
        assert fast["loss"] == pytest.approx(plain["loss"], rel=1e-3)
        assert fast["gradient"] == pytest.approx(plain["gradient"], rel=1e-2)
