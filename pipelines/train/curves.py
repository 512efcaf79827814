"""Curves of a training run as a picture."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Draw losses, val scores and speed of a run's history into a PNG."""
    panels = {
        "loss": ("mask", "transfer", "corr", "correlation"),
        "val scores": ("val_mask_iou", "val_pck_1", "val_pck_3", "val_pck_5", "val_false_area"),
    }
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for name in names:
            rows = [row for row in history if row.get(name) is not None]
            if rows:
                label = name.removeprefix("val_").replace("_", " ")
                mark = "o-" if title == "val scores" else "-"
                axes.plot([r["step"] for r in rows], [r[name] for r in rows], mark, label=label,
                          markersize=3)  # fmt: skip
        axes.set_xlabel("step")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if title == "loss":
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
