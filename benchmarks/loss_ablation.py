"""What each of the three losses is worth: the correlation matcher trained without some of them.

    python benchmarks/loss_ablation.py PAIRS --out FOLDER
    python benchmarks/loss_ablation.py --annotations COCO.json --images FOLDER --out FOLDER

PAIRS is a dataset with train and val pairs; without it one is made in --out, of as many train pairs
as are trained on. Every row is trained from the same first weights on the same batches for as many
steps, and its last weights are scored on the same val pairs; SIFT+RANSAC on them is the last row.
One seed and a small budget: before small differences mean anything, repeat them with another --seed
and --out. The losses are those of Shen et al. (arXiv 2110.15904); what a row tells:

* all three: what the others are compared with.
* without transfer: what it brings that masks agree through the positions.
* without corr: positions learned only through masks that agree when carried over.
* without mask: masks learned only through the other image's. No loss sees pairs that share nothing
  any more: the false area is the one to look at.
* mask alone: the mask's evidence is cut off from the positions, so that these are the untrained
  vote's: what a mask is worth, and the positions' starting point.
* corr alone: the mask is not trained; only the PCK says something.

Whoever stops it, or has it killed, gives the same command again: rows that are finished are reused,
one that was interrupted goes on.
"""

import argparse
import contextlib
import csv
import sys
from pathlib import Path

import measuring
import torch

from pipelines.evaluate.config import EvalConfig
from pipelines.evaluate.job import score_methods, table
from pipelines.evaluate.pair_sets import dataset_set
from pipelines.generation.config import Amount, Inputs
from pipelines.training.config import TrainConfig
from pipelines.training.job import train
from segswap.training.checkpoints import STATE
from segswap.training.history import HISTORY

# Weights of the mask, transferred-mask and correspondence losses.
ROWS = {
    "all three": (1.0, 1.0, 1.0),
    "without transfer": (1.0, 0.0, 1.0),
    "without corr": (1.0, 1.0, 0.0),
    "without mask": (0.0, 1.0, 1.0),
    "mask alone": (1.0, 0.0, 0.0),
    "corr alone": (0.0, 0.0, 1.0),
}


def train_row(title: str, pairs: str, options: argparse.Namespace) -> Path:
    """Train the matcher of a row, unless it is finished, and return its run's folder."""
    run = options.out / title.replace(" ", "-")
    mask, transfer, corr = ROWS[title]
    # One checkpoint, at the end: with more, val scores would choose among them.
    config = TrainConfig(
        (pairs,), str(run), resume=(run / STATE).exists(), steps=options.steps,
        batch=options.batch, size=options.size, match_size=options.match_size, seed=options.seed,
        every=options.steps,
        losses={"mask": mask, "transfer": transfer, "corr": corr, "correlation": corr},
    )  # fmt: skip
    print(f"{title}:", file=sys.stderr, flush=True)
    if status := train(config):
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(status)
    return run


def minutes(run: Path, batch: int) -> float:
    """How long a run trained, scoring and interruptions left out."""
    with open(run / HISTORY, newline="") as file:
        rows = list(csv.DictReader(file))
    seconds, before = 0.0, 0
    for row in rows:
        seconds += (int(row["step"]) - before) * batch / float(row["samples_per_second"])
        before = int(row["step"])
    return seconds / 60


def made_pairs(options: argparse.Namespace) -> str:
    """The dataset in --out, made now or earlier."""
    folder = str(options.out / "pairs")
    amount = Amount(options.steps * options.batch, options.limit, shard_pairs=100)
    measuring.make_pairs(folder, amount, Inputs(options.annotations, options.images))
    return folder


def ablate(options: argparse.Namespace) -> str:
    """Train and score what is missing; returns the report."""
    with contextlib.redirect_stdout(sys.stderr):
        pairs = options.pairs or made_pairs(options)
        scored = dataset_set(pairs, "val", False, options.limit)  # an unusable one ends it here
        runs = {title: train_row(title, pairs, options) for title in ROWS}
        config = EvalConfig(
            pairs, model=tuple(map(str, runs.values())), baseline=("sift",), limit=options.limit,
            predictions=str(options.out / f"predictions-{options.limit}"),
        )  # fmt: skip
        scores = score_methods(config)[scored.name]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    spent = {title: minutes(run, options.batch) for title, run in runs.items()}
    each = ", ".join(f"{title} {value:.1f}" for title, value in spent.items())
    rows = dict(zip([*ROWS, "SIFT+RANSAC"], scores.values(), strict=True))
    return (
        f"{measuring.machine(torch)}{gpu}; {options.steps} steps of {options.batch} pairs of "
        f"{options.size} px, seed {options.seed}; matched at {options.match_size} px; "
        f"{scored.title}; {sum(spent.values()):.1f} minutes of training ({each})\n\n{table(rows)}"
    )


def main() -> None:
    """Run the ablation and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pairs", nargs="?")
    parser.add_argument("--annotations", help="COCO instances JSON to make the pairs from")
    parser.add_argument("--images", help="folder of its images")
    parser.add_argument("--out", type=Path, required=True, help="keeps runs and predictions")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=160, help="side in training, pixels")
    parser.add_argument("--match-size", type=int, default=320, help="side in matching, pixels")
    parser.add_argument("--limit", type=int, default=60, help="val pairs to score on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if bool(options.pairs) == bool(options.annotations and options.images):
        parser.error("give PAIRS, or --annotations and --images to make them from")
    try:
        print(ablate(options))
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
