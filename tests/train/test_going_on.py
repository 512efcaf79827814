"""--resume where the best weights are gone, for more steps, and of weights that are no numbers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_models import save_model
from safetensors.torch import load_file, save_file
from training_runs import history, out_of, same, stop_after

import segswap
from pipelines.training.config import TrainConfig
from pipelines.training.job import train
from segswap.training.checkpoints import load_state, save_state

Undisturbed = Callable[[TrainConfig], Path]


@pytest.mark.parametrize(
    ("gone", "init"),
    [
        (["model.safetensors"], False),
        (["model.json", "model.safetensors"], True),
        pytest.param(["model.safetensors"], True, marks=pytest.mark.slow),
        pytest.param(["model.json", "model.safetensors"], False, marks=pytest.mark.slow),
    ],
)
def test_without_the_best_weights_a_run_goes_on(
    gone: list[str], init: bool, config: TrainConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, undisturbed: Undisturbed,
) -> None:  # fmt: skip
    if init:
        config = replace(config, init=str(save_model(tmp_path / "init")))
    whole = undisturbed(config)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert train(config) == 130
    for name in gone:
        (out_of(config) / name).unlink()
    assert train(replace(config, resume=True)) == 0
    first, second = load_state(whole), load_state(out_of(config))
    for part in ("model", "average", "optimiser", "rates"):
        assert same(first[part], second[part]), part
    segswap.load(out_of(config))


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"cut")])
def test_a_finished_run_gets_its_model_back(
    harm: Callable[[Path], object], config: TrainConfig
) -> None:
    assert train(config) == 0
    kept = load_state(out_of(config))["average"]
    harm(out_of(config) / "model.safetensors")
    assert train(replace(config, resume=True)) == 0
    assert same(load_file(out_of(config) / "model.safetensors"), kept)


@pytest.mark.parametrize("schedule", ["cosine", pytest.param("step", marks=pytest.mark.slow)])
def test_a_run_may_be_made_longer(
    schedule: str, config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(config, schedule=schedule, steps=2, warmup=0, every=1, batch=1, negatives=0)
    assert train(config) == 0
    longer = replace(config, steps=2 * config.steps, resume=True)
    assert train(longer) == 0
    assert "--steps was 2, is 4: the run goes further" in capsys.readouterr().err
    assert load_state(out_of(config))["step"] == 4
    rates = [float(row["lr"]) for row in history(out_of(config))]
    at_once = replace(config, steps=4, out=str(out_of(config).parent / "at_once"))
    assert train(at_once) == 0
    assert rates[2:] == [float(row["lr"]) for row in history(out_of(at_once))][2:]
    # From now on it is a run of 4 steps.
    with pytest.raises(ValueError, match=r"steps was 4, is 2; .*--steps alone may be more"):
        train(replace(config, resume=True))


def test_another_run_is_begun_by_init(config: TrainConfig) -> None:
    assert train(replace(config, steps=1)) == 0
    with pytest.raises(ValueError, match=rf"batch was 2, is 3; .*--init {config.out}"):
        train(replace(config, steps=2, batch=3, resume=True))


def harmed(weights: dict[str, torch.Tensor], value: float) -> str:
    name = next(name for name in weights if "weight" in name)
    weights[name] = weights[name].clone()
    weights[name].view(-1)[-1] = value
    return name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    value: float, config: TrainConfig, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = harmed(weights, value)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"holds weights that are NaN or infinite \({name}\)"):
        segswap.load(folder)
    with pytest.raises(ValueError, match="NaN or infinite"):
        train(replace(config, init=str(folder)))
    torch.save(weights, tmp_path / "backbone.pth")
    options = {"backbone": "resnet18", "backbone_weights": str(tmp_path / "backbone.pth")}
    with pytest.raises(ValueError, match=r"backbone\.pth holds weights that are NaN"):
        train(replace(config, matcher="transformer", options=options))
    assert not out_of(config).exists()


@pytest.mark.parametrize("part", ["model", "average"])
def test_a_checkpoint_of_no_numbers_is_refused(part: str, config: TrainConfig) -> None:
    assert train(replace(config, steps=1, every=1)) == 0
    state = load_state(out_of(config))
    name = harmed(state[part], float("nan"))
    save_state(out_of(config), state)
    with pytest.raises(ValueError, match=rf"last\.pt .*its {part} holds .*\({name}\)"):
        train(replace(config, steps=2, every=1, resume=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": "3"}, "state's step is text"), ({"history": 5}, "state's history is an integer"),
        ({"history": [5]}, r"history\[0\] is an integer"), ({"rng": None}, "state's rng is null"),
        ({"best": [1]}, "state's best is a list"), ({"sums": None}, "state's sums is null"),
    ],
)  # fmt: skip
def test_a_strangers_checkpoint(
    change: dict[str, object], said: str, config: TrainConfig
) -> None:  # fmt: skip
    config = replace(config, steps=1, every=1)
    assert train(config) == 0
    save_state(out_of(config), load_state(out_of(config)) | change)
    with pytest.raises(ValueError, match=rf"last\.pt .*{said}"):
        train(replace(config, resume=True))
