"""A round of a proposer's training: the numbers that all methods share."""

import math
from collections.abc import Callable
from pathlib import Path

from generators.networks.trained import FILE
from generators.styles.adain import fast_bfloat16
from pipelines.training.parts import run_part
from pipelines.training.proposer_config import ProposerConfig
from segswap.training.checkpoints import STATE
from segswap.training.schedule import Execution, Schedule
from segswap.training.task import Task
from segswap.training.trainer import Trainer

Stop = Callable[[], bool]  # whether to end in order
_WARM_UP = 100
_LOG_EVERY = 20


def run_round(config: ProposerConfig, task: Task, folder: Path, what: str, asked: Stop) -> bool:
    """Train a round to its end; returns whether that was reached.

    Args:
        config: of the training.
        task: what is trained in the round.
        folder: of the round, which may hold a checkpoint to go on from.
        what: it is called.
        asked: whether to stop.
    """
    schedule = Schedule(
        steps=config.steps, batch=config.batch, accumulate=1, lr=config.lr,
        warmup=min(_WARM_UP, config.steps // 2), decay="cosine", every=config.every,
        log_every=_LOG_EVERY, optimiser="adamw", weight_decay=0.01, ema=0.99, clip=math.inf,
    )  # fmt: skip
    device = next(task.network.parameters()).device
    execution = Execution("bf16" if fast_bfloat16(device) else "fp32")
    trainer = Trainer(task, schedule, folder, execution, asked)
    return run_part(trainer, what, FILE, config.resume and (folder / STATE).exists())
