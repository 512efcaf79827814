"""Hard negatives: the pool, its scores, the rounds, and going on in the middle of one."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_pairs import write_dataset
from torch import Tensor
from training_runs import (
    assert_same_run,
    origin_pair,
    out_of,
    small_config,
    stop_after,
    undisturbed_runs,
)

from pipelines.command.messages import said
from pipelines.training.config import TrainConfig
from pipelines.training.job import train
from segswap.data.pair import Pair
from segswap.matchers.base import Matcher
from segswap.matchers.transformer import TransformerMatcher
from segswap.models.model import load
from segswap.training import mining as mined
from segswap.training.checkpoints import load_state
from segswap.training.mining import EXTRA, Mining
from segswap.training.trainer import Trainer


class Pairs:
    """A stream whose samples' sources are given images, over and over."""

    def __init__(self, *images: int) -> None:
        self.pairs = [origin_pair(number, image) for number, image in enumerate(images)]
        self.asked: list[int] = []

    def pair(self, number: int) -> Pair:
        self.asked.append(number)
        return self.pairs[number % len(self.pairs)]

    def name(self, number: int) -> str:
        return f"sample {number}"


def made_matcher(bias: float = 0.0) -> TransformerMatcher:
    """One that takes about sigmoid(bias) of every image for shared."""
    torch.manual_seed(0)
    matcher = TransformerMatcher("tiny", "resnet18", freeze_backbone=False)
    with torch.no_grad():
        matcher.transformer.head.bias[2] = bias
    return matcher


def made_mining(stream: Any, **changes: Any) -> Mining:
    settings = {"size": 64, "pool": 4, "batch": 2, "accumulate": 1, "seed": 0}
    return Mining(stream, **{**settings, **changes})


def next_round(
    mining: Mining, step: int = 0, matcher: Matcher | None = None, at_once: int = 2,
    stop: Callable[[], bool] = lambda: False, progress: Any = lambda done, total: None,
) -> bool:  # fmt: skip
    return mining.next_round(
        matcher or made_matcher(), step, at_once, autocast=nullcontext, stop=stop,
        progress=progress,
    )  # fmt: skip


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor], None]:
    """Have pairs scored as given."""

    def give(scores: Tensor) -> None:
        monkeypatch.setattr(mined, "_score_pairs", lambda *_: iter([scores]))

    return give


def test_a_pool_has_different_images_and_its_samples_are_held_out() -> None:
    stream = Pairs(0, 0, 1, 0, 2, 1, 3, 4)
    mining = made_mining(stream)
    assert next_round(mining)
    assert mining.numbers == [0, 2, 4, 6]
    # Samples 0 to 6 were looked at: the first batch of two after them is the fourth.
    assert mining.first_batch == 4
    assert stream.asked == list(range(7))


def test_a_pool_takes_as_many_images_as_there_are_and_looks_no_further_than_needed() -> None:
    stream = Pairs(0, 1)
    mining = made_mining(stream, pool=5)
    assert next_round(mining)
    assert mining.numbers == [0, 1]
    assert stream.asked == list(range(20))


def test_a_photograph_under_two_names_is_in_a_pool_once() -> None:
    stream = Pairs(0, 1, 2)
    for number, sha256 in enumerate(("a", "b", "a")):
        item = stream.pairs[number].objects[0]
        item = replace(item, segment={**item.segment, "sha256": sha256})
        stream.pairs[number] = replace(stream.pairs[number], objects=(item,))
    mining = made_mining(stream, pool=3)
    assert next_round(mining)
    assert mining.numbers == [0, 1]


def test_one_image_is_no_pool() -> None:
    with pytest.raises(ValueError, match="16 samples have 1 different source image"):
        next_round(made_mining(Pairs(0)))


def test_a_sample_that_does_not_say_its_image_is_named() -> None:
    stream = Pairs(0, 1)
    item = replace(stream.pairs[1].objects[0], segment={})
    stream.pairs[1] = replace(stream.pairs[1], objects=(item,))
    with pytest.raises(ValueError, match="sample 1 does not say which image"):
        next_round(made_mining(stream))


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_scores_are_the_sum_of_the_two_mean_masks_of_every_pair(at_once: int) -> None:
    matcher = made_matcher(bias=-3.0)
    seen = []
    mining = made_mining(Pairs(0, 1, 2, 3))
    next_round(mining, matcher=matcher, at_once=at_once, progress=lambda *p: seen.append(p))
    matcher.eval()
    images = mining._images
    assert images is not None
    expected = []
    with torch.no_grad():
        for a in range(4):
            for b in range(a + 1, 4):
                matches = matcher(images[a : a + 1].float() / 255, images[b : b + 1].float() / 255)
                masks = matches.source.mask_logits.sigmoid(), matches.target.mask_logits.sigmoid()
                value = float(masks[0].mean() + masks[1].mean())
                expected.append(value if value >= 0.04 else 0.0)
    assert mining.scores.tolist() == pytest.approx(expected, rel=1e-4)
    assert max(expected) > 0
    assert seen[-1] == (6, 6)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_next_to_nothing_counts_as_nothing() -> None:
    matcher = made_matcher(bias=-9.0)
    mining = made_mining(Pairs(0, 1, 2))
    next_round(mining, matcher=matcher)
    assert mining.scores.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("hard", "steps"), [(10, 0), (11, 11), (100, 100), (101, 100)]
)  # fmt: skip
def test_a_round_has_as_many_steps_as_hard_pairs_and_at_most_a_hundred(
    hard: int, steps: int, scored: Callable[[Tensor], None]
) -> None:
    scores = torch.full((120,), 0.1)  # not above
    scores[:hard] = 0.11
    scored(scores)
    mining = made_mining(Pairs(*range(16)), pool=16)
    assert next_round(mining, step=7)
    assert (mining.hard, mining.first_step, mining.last_step) == (hard, 7, 7 + steps)
    assert mining.empty == (0 if steps else 1)


def test_rounds_follow_each_other_in_the_stream(scored: Callable[[Tensor], None]) -> None:
    scored(torch.full((15,), 0.2))
    stream = Pairs(*range(200))
    mining = made_mining(stream, pool=6, accumulate=2)
    next_round(mining, step=0)
    assert (mining.first_batch, mining.last_step) == (3, 15)
    assert [mining.batch_of(step) for step in (0, 1, 14)] == [3, 5, 31]
    stream.asked.clear()
    next_round(mining, step=15)
    # The first round's last batch was the 32nd, of two samples each.
    assert stream.asked == list(range(66, 72))
    assert mining.batch_of(15) == 36


def test_extra_pairs_are_drawn_in_proportion_and_repeat(scored: Callable[[Tensor], None]) -> None:
    scores = torch.zeros(15)
    scores[0], scores[7], scores[14] = 0.1, 0.3, 0.6
    scored(scores)
    mining = made_mining(Pairs(*range(6)), pool=6)
    next_round(mining)
    pairs = {(0, 1): 0.1, (1, 4): 0.3, (4, 5): 0.6}  # numbers of the pool's images
    counts = dict.fromkeys(pairs, 0)
    for batch in range(600):
        numbers = np.array(mining.extra_numbers(batch)).reshape(2, EXTRA)
        for a, b in numbers.T:
            counts[int(a), int(b)] += 1
    for pair, share in pairs.items():
        assert counts[pair] / 3000 == pytest.approx(share, abs=0.03)
    sources, targets = mining.extra(3)
    numbers = mining.extra_numbers(3)
    images = mining._images
    assert images is not None
    assert torch.equal(sources, images[numbers[:EXTRA]])
    assert torch.equal(targets, images[numbers[EXTRA:]])


def test_state_brings_a_round_back(scored: Callable[[Tensor], None]) -> None:
    scored(torch.linspace(0.05, 0.5, 15))
    mining = made_mining(Pairs(*range(6)), pool=6)
    next_round(mining)
    other = made_mining(Pairs(*range(6)), pool=6)
    other.restore(mining.state())
    for batch in (3, 4):
        for one, two in zip(mining.extra(batch), other.extra(batch), strict=True):
            assert torch.equal(one, two)
    assert other.batch_of(2) == mining.batch_of(2)


def test_giving_up_changes_nothing() -> None:
    mining = made_mining(Pairs(0, 1, 2, 3))
    before = mining.state()
    looks = iter([False] * 7 + [True] * 9)  # in the middle of the scores
    assert not next_round(mining, stop=lambda: next(looks))
    assert mining.state() == before


# --- as a training ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The config of a second stage whose first is done, with a model that knows next to nothing and
    so takes half of every image for shared.
    """
    folder = tmp_path_factory.mktemp("first")
    pairs = [origin_pair(n) for n in range(8)]
    dataset = write_dataset(folder / "pairs", pairs, [origin_pair(9), origin_pair(10)])
    config = small_config(
        dataset, folder, matcher="transformer", steps=1,
        options={"model_size": "tiny", "backbone": "resnet18", "freeze_backbone": False},
    )  # fmt: skip
    train(config)
    return small_config(
        dataset, folder, init=config.out, options={"freeze_backbone": False}, hard_negatives=True,
        pool=6, steps=20, every=10, warmup=0,
    )  # fmt: skip


@pytest.fixture
def config(first_stage: TrainConfig, tmp_path: Path) -> TrainConfig:
    return replace(first_stage, out=str(tmp_path / "run"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrainConfig], Path]:
    return undisturbed_runs(tmp_path_factory.mktemp("undisturbed"))


def test_second_stage_trains_round_by_round_from_the_first(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with said():
        assert train(config) == 0
    shown = capsys.readouterr().err
    assert "pool 1: 15 hard pairs of 6 images, 15 steps" in shown
    assert "pool 2: " in shown
    assert "scoring: 15/15 pairs" in shown
    state = load_state(out_of(config))
    assert state["step"] == 20
    assert 5e-7 < state["history"][0]["lr"] < 1e-5
    first = load(config.init or "").matcher.named_parameters()
    moved = max(float((state["average"][k] - v.detach()).abs().max()) for k, v in first)
    assert 0 < moved < 20 * 1e-4


@pytest.mark.parametrize("steps", [pytest.param(4, marks=pytest.mark.slow), 17])
def test_a_round_that_is_cut_off_goes_on_exactly(
    steps: int, config: TrainConfig, undisturbed: Callable[[TrainConfig], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        assert train(config) == 130
    assert load_state(out_of(config))["step"] == steps
    assert train(replace(config, resume=True, workers=1)) == 0
    assert_same_run(out_of(config), undisturbed(config))


def test_an_interrupt_while_scoring_leaves_a_checkpoint(
    config: TrainConfig, undisturbed: Callable[[TrainConfig], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    original = mined._score_pairs
    rounds = 0

    def interrupted(*arguments: Any) -> Iterator[Tensor]:
        nonlocal rounds
        rounds += 1
        for part in original(*arguments):
            if rounds == 2:
                signal.raise_signal(signal.SIGINT)
            yield part

    with monkeypatch.context() as patch:
        patch.setattr(mined, "_score_pairs", interrupted)
        assert train(config) == 130
    assert load_state(out_of(config))["step"] == 15
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), undisturbed(config))


def test_training_ends_when_pools_have_no_hard_pairs(
    config: TrainConfig, scored: Callable[[Tensor], None], capsys: pytest.CaptureFixture[str]
) -> None:
    scored(torch.full((15,), 0.05))
    with said():
        assert train(config) == 0
    shown = capsys.readouterr().err
    assert "pool 5: 0 hard pairs of 6 images, too few" in shown
    assert "pool 6" not in shown
    assert "no hard negatives are left: ended at step 0" in shown
    assert load_state(out_of(config))["task"]["mining"]["empty"] == 5
    assert train(replace(config, resume=True)) == 0


def test_a_bad_step_notes_its_hard_negatives_too(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer._gradients

    def spoilt(self: Trainer, batches: Any) -> dict[str, Tensor]:
        means = original(self, batches)
        return {**means, "loss": means["loss"] * float("nan")} if self.step == 1 else means

    monkeypatch.setattr(Trainer, "_gradients", spoilt)
    with pytest.raises(RuntimeError, match="not finite at step 1"):
        train(config)
    noted = json.loads((out_of(config) / "bad_batch.json").read_text())
    assert len(noted["hard_negatives"]) == 2 * EXTRA
    # The pool took the first six samples, the first step the next two.
    assert {entry["number"] for entry in noted["hard_negatives"]} <= set(range(6))
    assert [entry["number"] for entry in noted["samples"]] == [8, 9]
