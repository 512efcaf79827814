"""A training of several parts: each a run of the one loop, told of on standard error."""

from pipelines.command.progress import Progress
from segswap.training.task import Observer, Row
from segswap.training.trainer import Trainer


class _Report(Observer):
    """Says on standard error how a part of the training goes."""

    def __init__(self, trainer: Trainer, what: str) -> None:
        self._task, self._seen = trainer.task, trainer.step
        self.progress = Progress(what, trainer.schedule.steps, "steps", trainer.step)

    def row(self, row: Row) -> None:
        """See Observer.row."""
        note = ", ".join(f"{name} loss {row[name]:.4g}" for name in self._task.terms)
        self.progress.add(row["step"] - self._seen, note)
        self._seen = row["step"]


def run_part(trainer: Trainer, what: str, weights: str, resume: bool) -> bool:
    """Train a part to its end; returns whether that was reached.

    Args:
        trainer: of the part.
        what: what it is called, or what learns in it.
        weights: the file in its folder that its best weights are in.
        resume: whether its folder holds a checkpoint to go on from.
    """
    if resume:
        trainer.resume(kept=(trainer.out / weights).is_file())
    report = _Report(trainer, what)
    try:
        finished = trainer.run(report)
    finally:
        report.progress.close()
    if not finished:
        print(f"stopped at step {trainer.step} of the {what}'s; --resume goes on from there")
    return finished
