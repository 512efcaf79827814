r"""What the parts of the published matchers are worth: each trained without some.

    python benchmarks/matchers_ablation.py --masked-images SOURCE ... --category-images SOURCE ... \
        --animals FOLDER --out FOLDER

Every row is trained for as many steps from the same first weights, and all are scored on
`segswap-benchmark animals`, beside the nearest neighbours of the features and the centred ellipse.
What the rows tell:

* sfnet: its terms (published PCK on PF-PASCAL: mask .675, flow .718, both .782, with smoothness
  .787) and its three kinds of argmax (discrete .762, soft .768, kernel .787); learned from
  --masked-images.
* macosnet: all, without each of the published terms, and the published five terms alone; learned
  from --category-images.
* ncnet: dense, each cell with its ten most similar ones (sparse; published: as good), and from the
  weak loss alone, as published; learned from --category-images.

Positions of these two are not refined, of which no term knows.

What RTN's estimates are worth, one trained model tells: rtn_estimates.py. One seed and a small
budget: before small differences mean anything, repeat them with another --seed and --out. Given
again, the same command reuses rows that are finished, and goes on with the others.
"""

import argparse
import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measuring
import torch

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.benchmark.job import benchmark
from pipelines.training.config import TrainConfig
from pipelines.training.job import train
from segswap.training.checkpoints import STATE

_SFNET = ("mask_consistency", "flow_consistency", "smoothness")
_PUBLISHED = ("match", "cycle", "transitivity", "contrast", "task")  # of MaCoSNet
_ADDED = ("kinds", "apart", "synthetic", "mask", "transfer", "corr")


@dataclass(frozen=True)
class Row:
    """A matcher, with the options and weights of losses that are not its own defaults."""

    matcher: str
    options: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)


def without(*names: str) -> dict[str, float]:
    """The weights that leave losses out."""
    return dict.fromkeys(names, 0.0)


_PLAIN = {"refine": False}

ROWS = {
    "sfnet": Row("sfnet"),
    "sfnet mask alone": Row("sfnet", losses=without(*_SFNET[1:])),
    "sfnet flow alone": Row("sfnet", losses=without(_SFNET[0], _SFNET[2])),
    "sfnet without smoothness": Row("sfnet", losses=without(_SFNET[2])),
    "sfnet soft": Row("sfnet", {"argmax": "soft"}),
    "sfnet discrete": Row("sfnet", {"argmax": "discrete"}),
    "macosnet": Row("macosnet", _PLAIN),
    **{f"macosnet without {name}": Row("macosnet", _PLAIN, without(name)) for name in _PUBLISHED},
    "macosnet published terms": Row("macosnet", _PLAIN, without(*_ADDED)),
    "ncnet": Row("ncnet", _PLAIN),
    "ncnet sparse": Row("ncnet", {"nearest": 10, **_PLAIN}),
    "ncnet weak alone": Row("ncnet", _PLAIN, without("mask", "transfer", "corr", "correlation")),
}


def train_row(title: str, options: argparse.Namespace) -> str:
    """Train a row, unless that is finished: its folder."""
    row, run = ROWS[title], options.out / title.replace(" ", "-")
    warped = row.matcher == "sfnet"
    config = TrainConfig(
        (), str(run), resume=(run / STATE).exists(), matcher=row.matcher, steps=options.steps,
        batch=options.batch, every=options.steps, seed=options.seed, workers=options.workers,
        ema=0.99, negatives=0 if warped else 1,
        masked_images=tuple(options.masked_images) if warped else (),
        category_images=() if warped else tuple(options.category_images),
        options=row.options, losses=row.losses,
    )  # fmt: skip
    print(f"{title}:", file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(sys.stderr):
        if status := train(config):
            print("stopped; the same command goes on", file=sys.stderr)
            sys.exit(status)
    return str(run)


def score(runs: list[str], options: argparse.Namespace) -> None:
    """Print the table of the trained rows, and one of what needs no training."""
    print(f"{measuring.machine(torch)}; {options.steps} steps of {options.batch}", flush=True)
    # The features are those of the first row of each matcher, at its size.
    trained = [*zip(options.rows, runs, strict=True)]
    first = {ROWS[title].matcher: run for title, run in reversed(trained)}
    for models, baseline in ((runs, ("ellipse",)), (first.values(), ("features",))):
        config = BenchmarkConfig(
            "animals", options.animals, tuple(models), baseline, options.limit,
            predictions=str(options.out / "predictions"),
        )  # fmt: skip
        if status := benchmark(config):
            sys.exit(status)


def main() -> None:
    """Run the ablation and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--masked-images", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--category-images", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--animals", required=True, help="folder of segswap-benchmark animals")
    parser.add_argument("--out", type=Path, required=True, help="keeps the runs")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="loader processes")
    parser.add_argument("--limit", type=int, help="only so many pairs of each sort to score on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        if not Path(options.animals).is_dir():  # told before the training, not after it
            raise ValueError(f"--animals {options.animals} is no folder; expected images/ in one")
        runs = [train_row(title, options) for title in options.rows]
        score(runs, options)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
