"""Several processes train one model: joined by torch.distributed, here without Ray."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as processes
from torch import distributed
from training_runs import out_of

import pipelines.training.distributed
from pipelines.training import job as command
from pipelines.training.config import TrainConfig
from pipelines.training.job import train_rank
from segswap.matchers.base import Answers
from segswap.matchers.correlation.correlation import CorrelationMatcher
from segswap.training.checkpoints import load_state
from segswap.training.trainer import Trainer

# Without negatives, which come from each process's own batch, and with losses that are means over
# all cells, two processes are one with twice the batch.
EXACT = {"negatives": 0, "losses": {"corr": 0.0, "correlation": 0.0}, "steps": 3, "every": 1}


def _stop_at(step: int) -> None:
    """Have this process asked to stop after some steps."""
    original, done = Trainer._step, 0

    def counted(self: Trainer, batches: Any) -> dict[str, float]:
        nonlocal done
        done += 1
        return original(self, batches)

    Trainer._step = counted  # type: ignore[method-assign]
    pipelines.training.distributed.stop_asked = lambda: done >= step


def _spoil_at(step: int) -> None:
    (original, *rest), done = CorrelationMatcher.terms, 0

    def spoilt(answers: Answers) -> torch.Tensor:
        nonlocal done
        done += 1
        return original.compute(answers) * (float("nan") if done > step else 1)

    CorrelationMatcher.terms = (replace(original, compute=spoilt), *rest)


def _rank(rank: int, config: TrainConfig, folder: str, fault: str | None) -> None:
    """One of two processes; leaves how it ended in a file."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    if fault and rank == 1:
        {"stop": _stop_at, "nan": _spoil_at}[fault](2)
    try:
        ended: Any = command.train_rank(config, rank, 2).finished
    except RuntimeError as error:
        ended = str(error)
    Path(folder, f"ended{rank}.json").write_text(json.dumps(ended))
    distributed.destroy_process_group()


def train_together(config: TrainConfig, folder: Path, fault: str | None = None) -> list[Any]:
    """Train in two processes; returns how each ended: whether it is finished, or its error's text.

    Args:
        fault: what happens in the second one: "stop" or "nan", after two steps.
    """
    folder.mkdir()
    config = replace(config, num_gpus=2)
    processes.spawn(_rank, (config, str(folder), fault), nprocs=2)
    return [json.loads((folder / f"ended{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.slow
def test_two_processes_learn_what_one_does_of_twice_the_batch(
    accumulate: int, config: TrainConfig, tmp_path: Path
) -> None:
    together = replace(config, **EXACT, accumulate=accumulate)
    alone = replace(together, batch=4, out=str(tmp_path / "alone"))
    assert train_together(together, tmp_path / "meeting") == [True, True]
    assert train_rank(alone, 0, 1).finished
    one, two = (load_state(out_of(run)) for run in (alone, together))
    assert two["history"][0]["gradient"] == pytest.approx(one["history"][0]["gradient"], rel=1e-4)
    for name, value in one["model"].items():
        # Adam's first steps are signs: where a gradient is next to nothing, they may differ.
        assert torch.allclose(value, two["model"][name], atol=5e-4), name
    assert two["step"] == 3
    # Rank 0 sees its own half's losses.
    assert two["history"][0]["loss"] != pytest.approx(one["history"][0]["loss"], rel=1e-4)


@pytest.mark.slow
def test_all_stop_at_the_same_step_when_one_is_asked_and_go_on_together(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, steps=5, every=1)
    assert train_together(config, tmp_path / "first", "stop") == [False, False]
    assert load_state(out_of(config))["step"] == 2
    assert train_together(replace(config, resume=True), tmp_path / "second") == [True, True]
    assert load_state(out_of(config))["step"] == 5


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_stops_all(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, steps=5, every=1)
    ended = train_together(config, tmp_path / "meeting", "nan")
    assert all("not finite at step 2" in text for text in ended)
    assert load_state(out_of(config))["step"] == 2
    noted = json.loads((out_of(config) / "bad_batch.json").read_text())
    # Two processes with two samples each.
    assert [sample["number"] for sample in noted["samples"]] == [8, 9, 10, 11]
