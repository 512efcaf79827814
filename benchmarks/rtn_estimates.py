"""What each of RTN's estimates is worth: a trained model that answers the first, the second, ...

    python benchmarks/rtn_estimates.py RUN --animals FOLDER --out FOLDER

RUN is a model of --matcher rtn. It is written to --out once for each of its estimates, with the
same weights and fewer of them (`coarse_estimates`, `fine_estimates`), without refinement, and once
as it is, so that `segswap-eval` and the other benchmarks score them likewise; and all are scored
on `segswap-benchmark animals`, beside the nearest neighbours of their features. Published (Kim et
al., NeurIPS 2018): better with every estimate, and no more so after three to five.
"""

import argparse
import contextlib
import sys
from pathlib import Path

import measuring
import torch

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.benchmark.job import benchmark
from segswap.models.model import Model, load

_COUNTS = ("coarse_estimates", "fine_estimates")


def write_estimates(run: str, out: Path) -> list[Path]:
    """A model's folders, one for each of its estimates, the first one first, and of itself.

    Raises:
        ValueError: it is no model of the rtn matcher.
    """
    model = load(run)
    options = model.settings["options"]
    if model.settings["matcher"] != "rtn":
        raise ValueError(f"{run} is a model of {model.settings['matcher']}; expected one of rtn")
    coarse, fine = (options[name] for name in _COUNTS)
    folders = []
    for number in range(1, coarse + fine + 1):
        counts = dict(zip(_COUNTS, (min(number, coarse), max(0, number - coarse)), strict=True))
        folder = out / f"estimate-{number}"
        given = options | counts | {"refine": False}
        Model(model.matcher, {**model.settings, "options": given}).save(folder)
        folders.append(folder)
    folders.append(out / "model")
    model.save(folders[-1])
    return folders


def main() -> None:
    """Score the estimates and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a model of the rtn matcher")
    parser.add_argument("--animals", required=True, help="folder of segswap-benchmark animals")
    parser.add_argument("--out", type=Path, required=True, help="keeps models and predictions")
    parser.add_argument("--limit", type=int, help="only so many pairs")
    options = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        folders = write_estimates(options.run, options.out)
    print(measuring.machine(torch), flush=True)
    # The features are the same in all.
    for models, baseline in ((folders, ()), (folders[-1:], ("features",))):
        config = BenchmarkConfig(
            "animals", options.animals, tuple(map(str, models)), baseline, options.limit,
            predictions=str(options.out / "predictions"), device="cpu",
        )  # fmt: skip
        benchmark(config)


if __name__ == "__main__":
    main()
