"""What is seen of a training run: progress, TensorBoard, and what it says at the end."""

from torch.utils.tensorboard import SummaryWriter

from pipelines.command.progress import Progress
from segswap.training.history import best_row
from segswap.training.matching import MatcherTask
from segswap.training.task import Observer, Row
from segswap.training.trainer import Trainer


class RunReport(Observer):
    """Says on standard error how a run goes, and keeps scalars and pictures for TensorBoard."""

    def __init__(self, trainer: Trainer, task: MatcherTask) -> None:
        self._trainer, self._task, self._seen = trainer, task, trainer.step
        self._steps = Progress("steps", trainer.schedule.steps, "steps", trainer.step)
        self._scoring: Progress | None = None
        self._scored = 0
        self._writer = SummaryWriter(str(trainer.out / "tensorboard"), purge_step=trainer.step)

    def row(self, row: Row) -> None:
        """See Observer.row."""
        note = f"loss {row['loss']:.3f}, {row['samples_per_second']:.1f} pairs/s"
        note += "".join(f", {said}" for said in _said(row))
        if "val_mask_iou" in row:
            pair = self._task.val[0]
            model = self._task.model_of(self._trainer.average.module)
            picture = model.predict(pair.source, pair.target).draw(pair.source, pair.target)
            self._writer.add_image("val/match", picture, row["step"], dataformats="HWC")
        self._steps.add(row["step"] - self._seen, note)
        self._seen = row["step"]
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name.replace("val_", "val/"), value, row["step"])

    def preparing(self, done: int, total: int) -> None:
        """See Observer.preparing: pairs of a pool are scored."""
        if self._scoring is None:
            self._scoring, self._scored = Progress("scoring", total, "pairs"), 0
        self._scoring.add(done - self._scored)
        self._scored = done
        if done == total:
            self._scoring.close()
            self._scoring = None

    def round(self, said: str) -> None:
        """See Observer.round."""
        print(said, flush=True)

    def close(self) -> None:
        """End what is under way."""
        for progress in (self._steps, self._scoring):
            if progress is not None:
                progress.close()
        self._writer.close()


def best_of(rows: list[Row], task: MatcherTask) -> str:
    """The best scores of a history as the end of a sentence; empty without any."""
    best = best_row(rows, task.quality)
    return "" if best is None else f"; best at step {best['step']}: {', '.join(_said(best))}"


def _said(row: Row) -> list[str]:
    """The scores of a row that decide on the best one."""
    names = {
        "val_mask_iou": "val mask IoU", "val_pck_5": "PCK@5%",
        "val_kind_iou": "IoU of kinds", "val_kind_pck_10": "PCK@10%",
    }  # fmt: skip
    return [f"{said} {row[name]:.3f}" for name, said in names.items() if name in row]
