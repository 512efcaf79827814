"""Training goes on exactly where it stopped, and does what its settings say."""

import json
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_pairs import pasted_pair, write_dataset
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from training_runs import (
    STEPS,
    assert_same_run,
    history,
    origin_pair,
    out_of,
    same,
    stop_after,
)

from pipelines.training.config import TrainConfig
from pipelines.training.job import train
from segswap.batches import loading
from segswap.batches.stream import PairStream
from segswap.data.pair import Pair
from segswap.matchers.base import Answers, Batch
from segswap.matchers.correlation.correlation import CorrelationMatcher
from segswap.models.model import Model, load
from segswap.training import history as history_module
from segswap.training import matching, trainer
from segswap.training.checkpoints import load_state
from segswap.training.matching import MatcherTask
from segswap.training.schedule import DECAYS, OPTIMISERS, Schedule

Runs = Callable[[TrainConfig], Path]


# --- going on --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matcher", "steps", "changes"),
    [
        ("correlation", 2, {}),
        pytest.param("correlation", 3, {"accumulate": 2}, marks=pytest.mark.slow),
        pytest.param(  # the scaler has a state
            "correlation", 3, {"precision": "fp16", "steps": 4}, marks=pytest.mark.slow
        ),
        ("transformer", 3, {}),  # it has dropout, hidden cells, batch statistics in its backbone
    ],
)
def test_half_a_run_and_the_rest_equal_the_whole(
    matcher: str, steps: int, changes: dict[str, Any], config: TrainConfig, undisturbed: Runs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = replace(config, **changes)
    if matcher == "transformer":
        config = replace(
            config, matcher="transformer",
            options={"model_size": "tiny", "backbone": "resnet18", "freeze_backbone": False},
        )  # fmt: skip
    whole = undisturbed(config)
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        assert train(config) == 130
    assert load_state(out_of(config))["step"] == steps
    assert not same(load_state(out_of(config))["model"], load_state(whole)["model"])
    # Elsewhere numbers are drawn in the meantime, and other workers load.
    torch.manual_seed(99)
    assert train(replace(config, resume=True, workers=1)) == 0
    assert_same_run(out_of(config), whole)


@pytest.mark.slow
def test_fifty_steps_and_fifty_more_equal_a_hundred(
    config: TrainConfig, undisturbed: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, steps=100, every=25)
    whole = undisturbed(config)
    with monkeypatch.context() as patch:
        stop_after(patch, 50)
        assert train(config) == 130
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), whole)


def test_number_of_loader_workers_changes_nothing(config: TrainConfig, undisturbed: Runs) -> None:
    assert train(replace(config, workers=2)) == 0
    assert_same_run(out_of(config), undisturbed(config))


def test_seed_changes_everything(config: TrainConfig, undisturbed: Runs) -> None:
    first = load_state(undisturbed(config))["model"]
    other = load_state(undisturbed(replace(config, seed=1, steps=2)))["model"]
    assert not same(first["adapt.0.weight"], other["adapt.0.weight"])


def test_interrupt_where_the_history_has_a_row_without_scores(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows come every 25 steps, scores every 40.
    long = replace(config, steps=40, every=40)
    with monkeypatch.context() as patch:
        stop_after(patch, 25, signal.SIGINT)
        assert train(long) == 130
    state = load_state(out_of(config))
    assert state["step"] == 25
    assert [row["step"] for row in state["history"]] == [25]
    load(config.out)


def test_resuming_a_finished_run_finds_nothing_to_do(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config)
    before = (out_of(config) / "model.safetensors").read_bytes()
    state = load_state(out_of(config))
    assert train(replace(config, resume=True)) == 0
    assert f"{STEPS} steps" in capsys.readouterr().out
    assert (out_of(config) / "model.safetensors").read_bytes() == before
    assert same(load_state(out_of(config)), state)


# --- averaged weights, best weights ----------------------------------------------------------


def test_average_is_the_recurrence_of_its_definition() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net[0].bias.requires_grad_(False)
    average = made_schedule().new_average(net)
    expected = net[0].weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter))
            net[1].running_mean.add_(1)
        average.update(net, step)
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * net[0].weight.detach()
    averaged = average.module
    assert torch.allclose(averaged[0].weight, expected, atol=1e-6)
    assert not torch.allclose(averaged[0].weight, net[0].weight, atol=1e-2)
    assert torch.equal(averaged[0].bias, net[0].bias)
    assert torch.equal(averaged[1].running_mean, net[1].running_mean)


@pytest.mark.parametrize(("decay", "left"), [(0.999, 0.999), (0.9, 0.9), (0.0, 0.0)])
def test_averages_decay_is_at_most_the_schedules(decay: float, left: float) -> None:
    net = nn.Linear(1, 1)
    nn.init.constant_(net.weight, 0.0)
    average = made_schedule(ema=decay).new_average(net)
    nn.init.constant_(average.module.weight, 1.0)
    average.update(net, 10**6)
    assert average.module.weight.item() == pytest.approx(left, rel=1e-5)


def test_averaged_weights_are_scored_and_kept_where_best(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []

    def evaluate(self: MatcherTask, averaged: nn.Module) -> dict[str, float]:
        seen.append({k: v.clone() for k, v in averaged.state_dict().items()})
        iou = (0.1, 0.9, 0.5)[len(seen) - 1]
        return {**dict.fromkeys(self.scores, 0.0), "mask_iou": iou, "pck_5": 0.2}

    monkeypatch.setattr(MatcherTask, "evaluate", evaluate)
    train(config)
    assert len(seen) == 3
    best, last = load_file(out_of(config) / "model.safetensors"), load_state(out_of(config))
    assert same(best, seen[1])
    assert same(last["average"], seen[2])
    assert not same(seen[1], seen[2])
    assert not same(last["model"], last["average"])
    assert last["best"] == pytest.approx(1.1)
    assert same(load(config.out).matcher.state_dict(), seen[1])


def test_without_val_pairs_the_last_weights_are_kept(config: TrainConfig, tmp_path: Path) -> None:
    alone = write_dataset(tmp_path / "train", [pasted_pair(0), pasted_pair(1)])
    train(replace(config, data=(alone,)))
    state = load_state(out_of(config))
    assert same(load_file(out_of(config) / "model.safetensors"), state["average"])
    assert not any(key.startswith("val_") for row in state["history"] for key in row)


# --- losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "columns"),
    [
        ("mask", {"mask"}), ("transfer", {"transfer"}), ("corr", {"corr"}),
        ("correlation", {"correlation"}),
    ],
)  # fmt: skip
def test_each_loss_can_be_switched_off(flag: str, columns: set[str], config: TrainConfig) -> None:
    assert train(replace(config, steps=2, losses={flag: 0.0})) == 0
    (row,) = history(out_of(config))
    empty = {name for name in ("mask", "transfer", "corr", "correlation") if not row[name]}
    assert empty == columns
    rest = {"mask", "transfer", "corr", "correlation"} - columns
    assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in rest), rel=1e-5)


def test_losses_are_weighted(config: TrainConfig) -> None:
    train(
        replace(
            config, steps=2, losses={"mask": 2.0, "transfer": 0.5, "corr": 0.1, "correlation": 0.1}
        )
    )
    row = {k: float(v) for k, v in history(out_of(config))[0].items()}
    expected = 2 * row["mask"] + 0.5 * row["transfer"] + 0.1 * (row["corr"] + row["correlation"])
    assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_loss_falls(config: TrainConfig, tmp_path: Path) -> None:
    two = write_dataset(tmp_path / "two", [pasted_pair(0), pasted_pair(1)])
    train(replace(config, data=(two,), steps=40, every=10, lr=5e-3))
    rows = [{k: float(v) for k, v in row.items() if v} for row in history(out_of(config))]
    for name in ("loss", "mask", "correlation"):
        assert rows[-1][name] < 0.85 * rows[0][name], name


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_keeps_the_checkpoint_and_names_the_samples(
    kind: str, config: TrainConfig, undisturbed: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (original, *rest), calls = CorrelationMatcher.terms, 0

    def spoilt(answers: Answers) -> Tensor:
        nonlocal calls
        calls += 1
        value = original.compute(answers)
        if calls < 4:
            return value
        # The root's slope at 0 is infinite.
        return value * math.nan if kind == "loss" else value + (value - value).abs().sqrt()

    with monkeypatch.context() as patch:
        patch.setattr(CorrelationMatcher, "terms", (replace(original, compute=spoilt), *rest))
        message = r"not finite at step 3.*bad_batch\.json: .*train-000\d\d\d\.tar.*--lr"
        with pytest.raises(RuntimeError, match=message):
            train(config)
    assert load_state(out_of(config))["step"] == 2
    noted = json.loads((out_of(config) / "bad_batch.json").read_text())
    assert noted["step"] == 3
    assert [sample["number"] for sample in noted["samples"]] == [6, 7]
    assert all("train-000" in sample["name"] for sample in noted["samples"])
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), undisturbed(config))


# --- steps -----------------------------------------------------------------------------------


def test_two_batches_a_step_equal_one_of_twice_the_size(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Losses that are means over all cells, and no negatives, which come from the batch itself.
    config = replace(config, steps=1, negatives=0, losses={"corr": 0.0, "correlation": 0.0})
    lengths = []
    for name, batch, accumulate in (("whole", 4, 1), ("parts", 2, 2), ("half", 2, 1)):
        run = replace(config, out=f"{config.out}-{name}", batch=batch, accumulate=accumulate)
        train(run)
        row = load_state(out_of(run))["history"][0]
        lengths.append((row["gradient"], row["loss"]))
    assert lengths[1] == pytest.approx(lengths[0], rel=1e-4)
    assert lengths[2] != pytest.approx(lengths[0], rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_runs_and_learns_about_the_same(
    precision: str, config: TrainConfig, undisturbed: Runs
) -> None:
    config = replace(config, steps=2, every=1)
    rough_run = undisturbed(replace(config, precision=precision))  # type: ignore[arg-type]
    exact, rough = (
        [float(row["loss"]) for row in history(out)] for out in (undisturbed(config), rough_run)
    )
    assert rough[0] == pytest.approx(exact[0], rel=0.03)  # of the same weights
    assert rough[1] == pytest.approx(exact[1], rel=0.2)
    assert rough != exact


def test_a_step_beyond_the_range_of_fp16_is_skipped_and_training_goes_on(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    original = torch.amp.GradScaler.__init__

    def high(self: torch.amp.GradScaler, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **{**options, "init_scale": 2.0**127})

    with monkeypatch.context() as patch:
        patch.setattr(torch.amp.GradScaler, "__init__", high)
        assert train(replace(config, precision="fp16", steps=2, every=2)) == 0
    assert not [str(w.message) for w in recwarn if "lr_scheduler" in str(w.message)]
    state = load_state(out_of(config))
    assert state["history"][0]["skipped"] == 1
    assert "gradient" not in state["history"][0]
    assert math.isfinite(state["history"][0]["loss"])
    assert state["scaler"]["scale"] == 2.0**125


def test_negatives_are_other_samples_targets(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    original, *rest = CorrelationMatcher.terms

    def noted(answers: Answers) -> Tensor:
        negatives = answers.negatives
        counts.append(0 if negatives is None else len(negatives.source.mask_logits))
        return original.compute(answers)

    monkeypatch.setattr(CorrelationMatcher, "terms", (replace(original, compute=noted), *rest))
    for number, (batch, negatives) in enumerate(((3, 2), (2, 5), (2, 0), (1, 1))):
        run = replace(config, out=f"{config.out}{number}", steps=1, batch=batch,
                      negatives=negatives)  # fmt: skip
        train(run)
    # By shifting, a batch of n gives at most n - 1 different ones a pair.
    assert counts == [6, 2, 0, 0]


def made_schedule(**changes: Any) -> Schedule:
    return replace(
        Schedule(
            steps=100, batch=2, accumulate=1, lr=1e-3, warmup=10, decay="cosine", every=10,
            log_every=10,
        ),
        **changes,
    )  # fmt: skip


def rates_of(schedule: Schedule) -> list[float]:
    """The learning rates of all steps, as the optimiser gets them."""
    optimiser = schedule.new_optimiser([nn.Parameter(torch.zeros(1))])
    rates = schedule.new_rates(optimiser)
    found = []
    for _ in range(schedule.steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        rates.step()
    return found


def test_learning_rate_rises_then_falls_to_a_twentieth() -> None:
    rates = rates_of(made_schedule())
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[55] == pytest.approx(1e-3 * 1.05 / 2)
    assert rates[99] == pytest.approx(5e-5, rel=0.02)
    assert np.diff(rates[:10]).min() > 0
    assert np.diff(rates[10:]).max() < 0
    cosine = [math.cos(math.pi * n / 90) for n in range(90)]
    assert rates[10:] == pytest.approx([1e-3 * (0.05 + 0.475 * (1 + c)) for c in cosine], rel=1e-12)


def test_learning_rate_may_fall_in_one_step() -> None:
    rates = rates_of(made_schedule(decay="step"))
    assert rates[:10] == pytest.approx([1e-4 * (n + 1) for n in range(10)])
    assert rates[10:50] == [1e-3] * 40
    assert rates[50:] == pytest.approx([5e-5] * 50)


def test_learning_rate_may_fall_as_a_polynomial_or_stay() -> None:
    rates = rates_of(made_schedule(decay="poly"))
    assert rates[10:] == pytest.approx([1e-3 * (1 - n / 90) ** 0.9 for n in range(90)])
    for decay in ("poly", "constant"):
        rates = rates_of(made_schedule(decay=decay))
        assert rates[:10] == pytest.approx([1e-4 * (n + 1) for n in range(10)])
    assert rates[10:] == [1e-3] * 90


def test_a_run_may_be_all_warm_up() -> None:
    for decay in DECAYS:
        rates = rates_of(made_schedule(decay=decay, warmup=200))
        assert rates == pytest.approx([5e-6 * (n + 1) for n in range(100)])


def test_schedule_reaches_the_optimiser(config: TrainConfig) -> None:
    train(replace(config, schedule="step", steps=4, every=1, warmup=0, lr=1e-3))
    assert [float(row["lr"]) for row in history(out_of(config))] == pytest.approx(
        [1e-3, 1e-3, 5e-5, 5e-5]
    )


@pytest.mark.parametrize(
    ("optimiser", "ema"), [pytest.param("sgd", 0.999, marks=pytest.mark.slow), ("adamw", 0.0)]
)
def test_a_run_with_another_optimiser_goes_on_exactly(
    optimiser: str, ema: float, config: TrainConfig, undisturbed: Runs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = replace(config, optimiser=optimiser, weight_decay=0.1, ema=ema, schedule="poly")
    whole = undisturbed(config)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert train(config) == 130
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), whole)
    state = load_state(whole)
    assert ("momentum_buffer" in state["optimiser"]["state"][0]) == (optimiser == "sgd")
    assert same(state["model"], state["average"]) == (ema == 0)
    assert not same(state["model"], load_state(undisturbed(replace(config, weight_decay=0.0)))
                    ["model"])  # fmt: skip


def test_weight_decay_of_adamw_is_apart_from_the_gradient() -> None:
    found = {}
    for name in OPTIMISERS:
        weight = nn.Parameter(torch.ones(1))
        optimiser = made_schedule(optimiser=name, lr=0.1, weight_decay=0.5).new_optimiser([weight])
        weight.grad = torch.zeros(1)
        optimiser.step()
        found[name] = weight.item()
    # Adam makes a step of the rate's length of whatever gradient there is.
    assert found == pytest.approx({"adam": 0.9, "adamw": 0.95, "sgd": 0.95})


def test_gradients_of_an_earlier_training_are_of_no_account() -> None:
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    schedule = made_schedule()
    schedule.new_rates(schedule.new_optimiser([weight]))
    assert weight.item() == 1


def test_waiting_for_data_is_told(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    original, update = loading._load, ModelEmaV3.update

    def load(*arguments: Any) -> Iterator[Batch]:
        nonlocal now
        for loaded in original(*arguments):
            now += 3
            yield loaded

    def computed(*arguments: Any) -> None:
        nonlocal now
        now += 1
        update(*arguments)

    # A clock of our own: this machine's other work must not count.
    clock = SimpleNamespace(monotonic=lambda: now)
    for module in (trainer, history_module):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(loading, "_load", load)
    monkeypatch.setattr(ModelEmaV3, "update", computed)
    train(replace(config, steps=2))
    (row,) = history(out_of(config))
    assert float(row["waiting"]) == pytest.approx(3 / 4)
    assert float(row["samples_per_second"]) == pytest.approx(2 * 2 / 8)


def test_few_pairs_of_images_are_looked_at_for_those_that_share_nothing(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    original = matching.share_nothing

    def counted(source: Pair, target: Pair) -> bool:
        looked.append(source.index)
        return original(source, target)

    monkeypatch.setattr(matching, "share_nothing", counted)
    matcher = CorrelationMatcher()
    stream = PairStream(config.data, "train", size=64, stride=8)
    val = [origin_pair(number) for number in range(16)]
    model = Model(matcher, {"matcher": "correlation", "options": {}, "size": 64})
    weights = {term.name: term.weight for term in matcher.terms}
    task = matching.MatcherTask(model, stream, val, weights=weights, negatives=1)
    assert task.evaluate(matcher)["false_area"] >= 0
    assert sorted(set(looked)) == list(range(0, 16, 2))
    assert len(looked) == 8
