"""The history of a training run: a row of means every few steps, and its CSV file."""

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

from segswap.files.storage import write_atomically
from segswap.training.task import Row

HISTORY = "history.csv"


class History:
    """Rows of a run, the values since the last one, and a clock.

    Attributes:
        columns: of the CSV file.
        rows: step, the means since the row before, samples a second, the share of the time that
            was spent waiting for data, and val scores where they were due. `skipped` is the share
            of steps that left fp16's range and changed nothing.
        sums: sum and count of each value since the last row.
    """

    def __init__(self, samples: int, terms: Sequence[str], scores: Sequence[str]) -> None:
        """
        Args:
            samples: of a step, on all devices.
            terms: names of the loss's terms.
            scores: names of the scores.
        """
        self.columns = (
            "step", "loss", *terms, "lr", "gradient", "skipped", "samples_per_second", "waiting",
            *(f"val_{name}" for name in scores),
        )  # fmt: skip
        self.samples = samples
        self.rows: list[Row] = []
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

    def close_row(self, step: int) -> Row:
        """A new row of what was added since the last one; scores may still be put into it."""
        seconds = time.monotonic() - self._started
        row: Row = {"step": step}
        row |= {name: total / count for name, (total, count) in self.sums.items()}
        row["samples_per_second"] = self._timed * self.samples / seconds
        row["waiting"] = self._waited / seconds
        self.rows.append(row)
        self.sums = {}
        self.restart_clock()
        return row

    def write(self, folder: Path) -> None:
        """Write the rows into a folder as CSV, whole."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(folder / HISTORY, text.getvalue().encode())
