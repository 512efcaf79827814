"""How long a match takes: two images, encoded and matched, by each model that ships.

In turns, after a warm-up, at each model's own size, beside SIFT with RANSAC on the same images, as
`segswap-eval --baseline sift` has it. The images are two photographs inside scikit-image.

    python benchmarks/match_speed.py
    python benchmarks/match_speed.py --models runs/mine segswap-base --repeats 15
"""

import argparse
from collections.abc import Callable
from functools import partial

import measuring
import torch

import segswap
from generators.sources.photos import photos
from segswap.evaluation.baselines import sift
from segswap.files.images import read_image
from segswap.models.hub import WEIGHTS
from segswap.models.model import Model


def told(model: Model | None) -> tuple[str, str]:
    """A model's side and the MB of its weights; nothing of what is no model."""
    if model is None:
        return "", ""
    assert model.folder is not None
    return str(model.settings["size"]), f"{(model.folder / WEIGHTS).stat().st_size / 1e6:.2f}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=segswap.shipped())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    folder = photos()[1]
    pair = [read_image(folder / name) for name in ("astronaut.png", "camera.png")]
    models = {name: segswap.load(name, options.device) for name in options.models}

    def seconds(job: Callable[[], object]) -> Callable[[int], float]:
        return lambda number: measuring.seconds(job)

    jobs = {name: seconds(partial(model.match, *pair)) for name, model in models.items()}
    jobs["sift+ransac"] = seconds(partial(sift, *pair))
    print(f"{measuring.machine(torch)}; {torch.get_num_threads()} threads, ms a pair")
    found = measuring.in_turns(jobs, options.repeats, warm_up=True)
    measuring.print_table(
        ("model", "side", "MB", "ms: median (min, max)"),
        (
            (name, *told(models.get(name)), measuring.spread([1000 * each for each in times], 0))
            for name, times in found.items()
        ),
    )


if __name__ == "__main__":
    main()
