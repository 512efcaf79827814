"""segswap-benchmark: its settings and its entry point."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from pipelines.benchmark.sources import SOURCES
from pipelines.command import cli

Name = Literal[
    "all", "internet", "brueghel", "tokyo247", "pitts30k", "pf-willow", "pf-pascal", "tss",
    "spair", "animals", "cosegmentation", "davis-retrieval", "coseg", "oxford", "wxbs",
]  # fmt: skip
WHERE = "The data is not downloaded. It is at: " + "; ".join(
    f"{name}: {source}" for name, source in SOURCES.items()
)


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure models, and baselines beside them, on a published benchmark by its own protocol.

    The table shows published scores below, marked as such.
    """

    name: Annotated[
        Name, tyro.conf.Positional,
        tyro.conf.arg(help=f"The benchmark; all: every one whose data is below ROOT. {WHERE}."),
    ]  # fmt: skip
    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
    """Folder of the benchmark's data; of all: the folder that holds one for each, of its name."""
    model: tuple[str, ...] = ()
    """Models: runs of segswap-train, folders, names of shipped models, hub ids."""
    baseline: tuple[Literal["sift", "pooled", "features", "ellipse"], ...] = ()
    """sift: SIFT, ratio test, affine RANSAC. pooled: cosine of the --model's features pooled over
    images. features: for each cell the most similar feature that the --model compares.
    ellipse: in the middle of every image, everything at its own place; of five sizes the one with
    the best masks. One that cannot do what a benchmark asks is left out."""
    limit: int | None = None
    """Only so many pairs, queries, or images of each class: the first ones."""
    confidence: float | None = None
    """Of discovery: that a match must have to be looked at, 0 to 1; by default 0.5 for models that
    know kinds of things, else the published 0.85."""
    json: str | None = None
    """Write the scores to this file too."""
    predictions: str | None = None
    """Folder that keeps the predictions and indexes; complete predictions of the same methods, data
    and settings are scored again without being made again."""
    device: str = "auto"
    """Where models run: auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        if not self.model and not self.baseline:
            raise ValueError("nothing to measure: give --model, --baseline, or both")
        for baseline in ("pooled", "features"):
            if baseline in self.baseline and not self.model:
                raise ValueError(f"--baseline {baseline} needs the --model whose features it takes")
        for flag, given in (("model", self.model), ("baseline", self.baseline)):
            if twice := [name for name in given if given.count(name) > 1]:
                raise ValueError(f"--{flag} names {twice[0]} twice")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}; expected at least 1")
        if self.confidence is not None and not 0 <= self.confidence < 1:
            raise ValueError(f"--confidence is {self.confidence}; expected 0 to below 1")


def main() -> None:
    """Entry point of segswap-benchmark."""
    cli.run(BenchmarkConfig, _benchmark, extras=("search",))


def _benchmark(config: BenchmarkConfig) -> int:
    from pipelines.benchmark.job import benchmark  # --help has no use for what it imports

    return benchmark(config)
