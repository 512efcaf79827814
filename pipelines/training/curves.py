"""Curves of a training run as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from segswap.training.task import Row


def draw_curves(history: list[Row], panels: dict[str, Sequence[str]], path: Path) -> None:
    """Draw columns of a run's history into a PNG.

    Args:
        history: the rows.
        panels: titles, and which columns each shows: losses on a logarithmic axis (linear around 0
            where some are below it), or val scores, whose names begin with val_, from 0 to 1.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name in names:
            rows = [row for row in history if row.get(name) is not None]
            if rows:
                label = name.removeprefix("val_").replace("_", " ")
                mark = "o-" if name.startswith("val_") else "-"
                axes.plot([r["step"] for r in rows], [r[name] for r in rows], mark, label=label,
                          markersize=3)  # fmt: skip
        axes.set_xlabel("step")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if names[0].startswith("val_"):
            axes.set_ylim(0, 1)
        else:
            shown = [row[name] for name in names for row in history if row.get(name) is not None]
            # A loss may be below 0, as a score with its sign changed is.
            axes.set_yscale("log" if min(shown, default=1.0) > 0 else "symlog")
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
