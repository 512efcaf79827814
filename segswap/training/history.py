"""The history of a training run: a row of means every few steps, and its CSV file."""

import csv
import time
from pathlib import Path
from typing import Any

from segswap.evaluation.metrics import Scores

HISTORY = "history.csv"
TERMS = ("mask", "transfer", "corr", "keypoints", "correlation")
COLUMNS = (
    "step", "loss", *TERMS, "lr", "gradient", "skipped", "pairs_per_second", "waiting",
    *(f"val_{name}" for name in Scores.__dataclass_fields__),
)  # fmt: skip


def quality(row: dict[str, Any]) -> float | None:
    """What decides which weights of a run are kept, of a row of its history or of its CSV file:
    mask IoU plus PCK@5% on the val pairs; None of a row without scores.
    """
    scores = [row.get(name, "") for name in ("val_mask_iou", "val_pck_5")]
    return None if "" in scores else sum(map(float, scores))


def best_row(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the best quality, the first of equals; None where none has scores."""
    scored = [(found, row) for row in rows if (found := quality(row)) is not None]
    return max(scored, key=lambda item: item[0])[1] if scored else None


class History:
    """Rows of a run, the values since the last one, and a clock.

    Attributes:
        rows: step, the means since the row before, pairs a second, the share of the time that was
            spent waiting for data, and val scores where they were due. `skipped` is the share of
            steps that left fp16's range and changed nothing.
        sums: sum and count of each value since the last row.
    """

    def __init__(self, pairs: int) -> None:
        """
        Args:
            pairs: positive pairs a step, on all devices.
        """
        self.pairs = pairs
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[str, list[float]] = {}
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure speed from now on: what went before was no training."""
        self._timed, self._started, self._waited = 0, time.monotonic(), 0.0

    def wait(self, seconds: float) -> None:
        """Count time spent waiting for data."""
        self._waited += seconds

    def add(self, values: dict[str, float]) -> None:
        """Count a step's values; a step may lack some."""
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, count + 1]
        self._timed += 1

    def close_row(self, step: int) -> dict[str, Any]:
        """A new row of what was added since the last one; scores may still be put into it."""
        seconds = time.monotonic() - self._started
        row: dict[str, Any] = {"step": step}
        row |= {name: total / count for name, (total, count) in self.sums.items()}
        row["pairs_per_second"] = self._timed * self.pairs / seconds
        row["waiting"] = self._waited / seconds
        self.rows.append(row)
        self.sums = {}
        self.restart_clock()
        return row

    def write(self, folder: Path) -> None:
        """Write the rows into a folder as CSV, whole."""
        temporary = folder / f".{HISTORY}.tmp"
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        temporary.replace(folder / HISTORY)
