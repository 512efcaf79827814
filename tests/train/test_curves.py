"""The curves of a run whose loss falls below 0, as one that is minus a score does."""

import warnings
from pathlib import Path

import cv2

from pipelines.training.curves import draw_curves


def test_losses_below_0_are_drawn_without_a_warning(tmp_path: Path) -> None:
    rows: list[dict[str, float | None]] = [
        {"step": 1, "loss": 2.0, "match": -1.0}, {"step": 2, "loss": 0.5, "match": None},
        {"step": 3, "loss": -3.0, "match": -4.0},
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_curves(
            rows, {"Losses": ("loss", "match"), "Scores": ("val_pck",)}, tmp_path / "curves.png"
        )
    drawn = cv2.imread(str(tmp_path / "curves.png"))
    assert drawn is not None
    assert drawn.std() > 5
