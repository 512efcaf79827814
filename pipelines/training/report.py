"""What is seen of a training run: progress, and TensorBoard."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pipelines.command.messages import LOG
from pipelines.command.progress import Progress
from pipelines.training.trained import said_scores
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
        self._writer = _writer(trainer.out / "tensorboard", trainer.step)

    def row(self, row: Row) -> None:
        """See Observer.row."""
        note = f"loss {row['loss']:.3f}, {row['samples_per_second']:.1f} pairs/s"
        note += "".join(f", {said}" for said in said_scores(row))
        if "val_mask_iou" in row:
            pair = self._task.val[0]
            model = self._task.model_of(self._trainer.average.module)
            picture = model.predict(pair.source, pair.target).draw(pair.source, pair.target)
            if self._writer:
                self._writer.add_image("val/match", picture, row["step"], dataformats="HWC")
        self._steps.add(row["step"] - self._seen, note)
        self._seen = row["step"]
        for name, value in row.items():
            if name != "step" and self._writer:
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
        LOG.info("%s", said)

    def close(self) -> None:
        """End what is under way."""
        for progress in (self._steps, self._scoring):
            if progress is not None:
                progress.close()
        if self._writer:
            self._writer.close()


def _writer(folder: Path, step: int) -> SummaryWriter | None:
    try:
        return SummaryWriter(str(folder), purge_step=step)
    except UnicodeError:  # TensorBoard knows names in UTF-8 alone
        LOG.warning("nothing is kept for TensorBoard: %s is not a name in UTF-8", folder)
        return None
