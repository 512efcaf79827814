"""What segswap-train-proposer does: weights of a network that proposes segments."""

from pathlib import Path
from typing import Any, Protocol

import torch

from generators.networks.trained import FILE
from pipelines.command import cli
from pipelines.command.devices import device_of, out_of_memory_says
from pipelines.command.stopping import STATUS, STEP, stopping
from pipelines.training.classes import SccamTraining, SeamTraining
from pipelines.training.ldf import LdfTraining
from pipelines.training.proposer_config import LdfConfig, ProposerConfig, SccamConfig, SeamConfig
from pipelines.training.rounds import Stop
from pipelines.training.run_folder import check_folder, describe
from segswap.batches.processes import lost_loader_says
from segswap.files.hashes import file_hash
from segswap.files.locks import locked
from segswap.files.stores import no_room_says

# What may differ when a run is resumed: where it runs, not what it computes.
_MACHINE = ("out", "resume", "workers", "device", "every")
_DATA = ("images", "masks", "labels", "annotations", "backbone_weights")  # may be moved
_GO_ON = "--resume goes on from the last checkpoint"


class Training(Protocol):
    """A method's training, its pictures found.

    Attributes:
        count: of its pictures.
        left_out: how many others cannot be used; they have been named.
    """

    count: int
    left_out: int

    @property
    def content(self) -> int | str:
        """By what the pictures, and what is told of them, are known when a run goes on."""

    def run(self, device: torch.device, asked: Stop) -> bool:
        """Train to the end, or until asked to stop; returns whether the end was reached."""


def train_proposer(config: ProposerConfig) -> int:
    """Train, or go on training.

    Returns:
        The exit status: 0, or 130 after an interrupt; then there is a checkpoint to resume from.

    Raises:
        ValueError: a folder, the weights or the configuration cannot be used.
        RuntimeError: a loss is not finite, or the device's memory too small.
    """
    with locked(config.out):
        return _train_proposer(config)


def _train_proposer(config: ProposerConfig) -> int:
    """See `train_proposer`; no other command is at work in the folder."""
    training = _training(config)
    identity = _identity(config, training)
    check_folder(config.out, config.resume, identity)
    device = device_of(config.device)
    describe(config.out, identity, device)
    with (
        stopping() as signals, signals.in_order(STEP) as asked,
        out_of_memory_says("lower --batch or --size"),
        lost_loader_says(_GO_ON), no_room_says(config.out, f"make room; {_GO_ON}"),
    ):  # fmt: skip
        if not training.run(device, asked):
            return STATUS
    lost = f"; {training.left_out} pictures were left out" if training.left_out else ""
    path = Path(config.out) / FILE
    print(f"{path}: of {training.count} pictures{lost}; --segments {config.out} takes it")
    return 0


def _training(config: ProposerConfig) -> Training:
    """The training of a method's settings, which names the pictures that it leaves out."""
    if isinstance(config, SeamConfig):
        return SeamTraining(config)
    if isinstance(config, SccamConfig):
        return SccamTraining(config)
    assert isinstance(config, LdfConfig)
    return LdfTraining(config)


def _identity(config: ProposerConfig, training: Training) -> dict[str, Any]:
    """What must be the same for a run to be resumed; see `check_folder`."""
    kept = {k: v for k, v in cli.as_dict(config).items() if k not in (*_DATA, *_MACHINE)}
    weights = config.weights
    known = weights if weights in (None, "shipped", "pip", "timm") else file_hash(weights)
    return {"config": kept, "datasets": {"pictures": training.content, "weights": known}}
