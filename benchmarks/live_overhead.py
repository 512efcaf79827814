"""What a trainer loses when its pairs are generated meanwhile, against reading them from shards.

    python benchmarks/live_overhead.py --annotations COCO.json --images FOLDER

Pairs of 240 px, from shards by two loader processes and from two Ray workers, in turns, for two
trainers: one whose steps of 8 pairs take a given time without using the CPU, as if they ran on an
accelerator, which is what the loss in percent is about; and the correlation matcher on this CPU
with 2 pairs a step, where trainer and generator take the cores from each other. The first steps of
each run, while processes start, are not counted; nor is the making of the shards. Waiting is the
share of the time that the trainer spent without a batch.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measuring
import torch

from pipelines.generation.config import Amount, Composition, Inputs, Styling
from pipelines.training.live import live_stream
from segswap.batches.stream import PairStream, Stream
from segswap.matchers.base import Batch
from segswap.matchers.correlation.correlation import CorrelationMatcher
from segswap.training.objective import Objective

SIZE, STRIDE, WARM_UP = 240, 8, 4
Step = Callable[[Batch], None]


def matcher_step() -> Step:
    """A step of the correlation matcher, as segswap-train computes it on a CPU."""
    weights = {"mask": 1.0, "transfer": 1.0, "corr": 1.0, "correlation": 1.0}
    objective = Objective(CorrelationMatcher(), weights, negatives=1)
    optimiser = torch.optim.Adam(objective.parameters(), lr=1e-4)

    def step(batch: Batch) -> None:
        optimiser.zero_grad()
        objective(batch)["loss"].backward()
        optimiser.step()

    return step


def rate(stream: Stream, step: Step, batch: int, steps: int) -> tuple[float, float]:
    """Pairs a second of a trainer, and the share of its time without a batch."""
    batches = stream.batches(batch, 0, WARM_UP + steps)
    for _ in range(WARM_UP):
        step(next(batches))
    waiting, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        taken = next(batches)
        waiting += time.perf_counter() - asked
        step(taken)
    seconds = time.perf_counter() - start
    return steps * batch / seconds, waiting / seconds


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    measuring.add_coco(parser)
    parser.add_argument("--pairs", type=int, default=800, help="pairs in the shards")
    parser.add_argument("--steps", type=int, default=40, help="steps of a run")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of an idle step")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turns")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    trainers: dict[str, tuple[Step, int]] = {
        f"a step of {options.seconds:g} s that leaves the CPU alone": (
            lambda _: time.sleep(options.seconds), 8,
        ),
        "the correlation matcher on this CPU": (matcher_step(), 2),
    }  # fmt: skip
    inputs = Inputs(options.annotations, options.images)
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "pairs")
        measuring.make_pairs(out, Amount(options.pairs, shard_pairs=100), inputs)
        shards = PairStream([out], "train", size=SIZE, stride=STRIDE, workers=options.workers)
        with live_stream(
            inputs, Composition(), Styling(), size=SIZE, stride=STRIDE, seed=0,
            workers=options.workers,
        ) as live:  # fmt: skip
            jobs = {
                (trainer, source): lambda _, given=(stream, *trainers[trainer]): rate(
                    *given, options.steps
                )
                for trainer in trainers
                for source, stream in (("shards", shards), ("live", live))
            }
            found = measuring.in_turns(jobs, options.repeats)
    print(f"{measuring.machine(torch)}; {options.workers} workers, {options.repeats} runs of "
          f"{options.steps} steps each, in turns; pairs of {SIZE} px")  # fmt: skip
    rows = []
    for trainer in trainers:
        (shard_rate, shard_wait), (live_rate, live_wait) = (
            [statistics.median(values) for values in zip(*found[trainer, source], strict=True)]
            for source in ("shards", "live")
        )
        rows.append([
            trainer, f"{shard_rate:.1f}", f"{live_rate:.1f}", f"{1 - live_rate / shard_rate:.1%}",
            f"{shard_wait:.1%}", f"{live_wait:.1%}",
        ])  # fmt: skip
    measuring.print_table(
        ["trainer", "shards, pairs/s", "live, pairs/s", "lost", "waiting, shards",
         "waiting, live"],
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
