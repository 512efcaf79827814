"""segswap-eval: its settings and its entry point."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from pipelines.command import cli


@dataclass(frozen=True)
class EvalConfig:
    """Score models, and baselines beside them, on pairs with ground truth.

    Every pair of a dataset is also matched with the next pair's target, with which it shares
    nothing; what is found there is the false area. A real stereo pair, a part of
    scikit-image, is scored too, where that is installed.
    """

    data: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PAIRS")] = None
    """A dataset that segswap-generate made, a folder or a URL; without it real pairs alone."""
    split: Literal["train", "val"] = "val"
    """The split to score on."""
    model: tuple[str, ...] = ()
    """Models: runs of segswap-train, folders, names of shipped models, hub ids."""
    baseline: tuple[Literal["sift", "features", "ellipse"], ...] = ()
    """sift: SIFT, ratio test, affine RANSAC. features: for each cell the most similar feature that
    the --model compares. ellipse: in the middle of both images, everything at its own place; of
    five sizes the one with the best masks."""
    homographies: str | None = None
    """Folder of a planar sequence, or of some: img1.png, img2.png, ..., H1to2p, ..."""
    tss: str | None = None
    """Folder of TSS: GROUP/PAIR/image1.png, ..."""
    styled: bool = False
    """Match the styled versions of the dataset's images instead of the plain ones."""
    limit: int | None = None
    """Score on the first pairs of the split only."""
    json: str | None = None
    """Write the scores to this file too."""
    predictions: str | None = None
    """Folder that keeps the predictions; complete ones of the same methods and pairs are reused."""
    device: str = "auto"
    """Where models run: auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        if not self.model and not self.baseline:
            raise ValueError("nothing to score: give --model, --baseline, or both")
        if "features" in self.baseline and not self.model:
            raise ValueError("--baseline features needs the --model whose features are compared")
        for flag, given in (("model", self.model), ("baseline", self.baseline)):
            if twice := [name for name in given if given.count(name) > 1]:
                raise ValueError(f"--{flag} names {twice[0]} twice")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}; expected at least 1")
        if self.data is None and (self.styled or self.limit is not None):
            raise ValueError("--styled and --limit are about PAIRS, which are not given")


def main() -> None:
    """Entry point of segswap-eval."""
    cli.run(EvalConfig, _evaluate)


def _evaluate(config: EvalConfig) -> int:
    from pipelines.evaluate.job import evaluate  # --help has no use for what it imports

    return evaluate(config)
