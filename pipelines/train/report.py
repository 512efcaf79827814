"""What is seen of a training run: progress, TensorBoard, and what it says at the end."""

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from pipelines.command.progress import Progress
from segswap.training.history import best_row
from segswap.training.mining import Mining
from segswap.training.trainer import Observer, Trainer


class RunReport(Observer):
    """Says on standard error how a run goes, and keeps scalars and pictures for TensorBoard."""

    def __init__(self, trainer: Trainer, out: Path) -> None:
        self._seen = trainer.step
        self._steps = Progress("steps", trainer.schedule.steps, "steps", trainer.step)
        self._scoring: Progress | None = None
        self._scored = 0
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=trainer.step)

    def row(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """See Observer.row."""
        note = f"loss {row['loss']:.3f}, {row['pairs_per_second']:.1f} pairs/s"
        if "val_mask_iou" in row:
            note += f", val mask IoU {row['val_mask_iou']:.3f}, PCK@5% {row['val_pck_5']:.3f}"
            pair = trainer.val[0]
            found = trainer.average.predict(pair.source, pair.target)
            picture = found.draw(pair.source, pair.target)
            self._writer.add_image("val/match", picture, row["step"], dataformats="HWC")
        self._steps.add(row["step"] - self._seen, note)
        self._seen = row["step"]
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name.replace("val_", "val/"), value, row["step"])

    def scoring(self, done: int, total: int) -> None:
        """See Observer.scoring."""
        if self._scoring is None:
            self._scoring, self._scored = Progress("scoring", total, "pairs"), 0
        self._scoring.add(done - self._scored)
        self._scored = done
        if done == total:
            self._scoring.close()
            self._scoring = None

    def pool(self, mining: Mining) -> None:
        """See Observer.pool."""
        steps = mining.last_step - mining.first_step
        print(
            f"pool {mining.round}: {mining.hard} hard pairs of {len(mining.numbers)} images, "
            + (f"{steps} steps with them" if steps else "too few to train on"),
            flush=True,
        )

    def close(self) -> None:
        """End what is under way."""
        for progress in (self._steps, self._scoring):
            if progress is not None:
                progress.close()
        self._writer.close()


def best_of(rows: list[dict[str, Any]]) -> str:
    """The best scores of a history as the end of a sentence; empty without any."""
    best = best_row(rows)
    return "" if best is None else (
        f"; best at step {best['step']}: val mask IoU {best['val_mask_iou']:.3f}, "
        f"PCK@5% {best['val_pck_5']:.3f}"
    )  # fmt: skip
