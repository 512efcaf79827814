"""What a training leaves in its folder, for whoever goes on from there in Python."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segswap.files.records import read_record
from segswap.models.hub import SCORES

if TYPE_CHECKING:
    from segswap.models.model import Model

_SAID = {
    "val_mask_iou": "val mask IoU", "val_pck_5": "PCK@5%", "val_kind_iou": "IoU of kinds",
    "val_kind_pck_10": "PCK@10%",
}  # fmt: skip


@dataclass(frozen=True)
class TrainedRun:
    """A run of segswap-train that has ended.

    Attributes:
        folder: with the model, the checkpoint, the history and the settings.
        step: how many steps it has made.
        finished: whether there is nothing left to do; otherwise it was interrupted.
    """

    folder: Path
    step: int
    finished: bool

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of history.csv: step, loss and its terms, ..., and val scores where they were
        due.
        """
        from segswap.training.history import HISTORY

        with open(self.folder / HISTORY, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [{name: float(value) for name, value in row.items() if value} for row in rows]

    @property
    def best(self) -> dict[str, float]:
        """The step and the val scores of the weights that are kept, the best ones; without val data
        the step alone.
        """
        return read_record(self.folder / SCORES, {"step": (int,)})

    def load(self) -> "Model":
        """The model with these weights; see `segswap.load`."""
        from segswap.models.model import load

        return load(self.folder)

    def __str__(self) -> str:
        if not self.finished:
            return f"stopped at step {self.step}; --resume goes on from there"
        best = self.best
        scores = said_scores(best)
        return f"{self.folder}: {self.step} steps" + (
            f"; best at step {best['step']}: {', '.join(scores)}" if scores else ""
        )


def said_scores(row: dict[str, float]) -> list[str]:
    """The scores of a row that decide on the best one, as words."""
    return [f"{said} {row[name]:.3f}" for name, said in _SAID.items() if name in row]
