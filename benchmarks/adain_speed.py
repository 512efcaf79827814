"""Time of one image's neural style transfer on the CPU: the plain way and this project's, in turns.

    python benchmarks/adain_speed.py STYLES [--images FOLDER]

The plain way is the published procedure: float32, 512 px, and the style picture encoded anew for
each image. This project's keeps a style's statistics, works in bfloat16 with the channels last
where the processor has instructions for it, and restyles a pair's two images at once, on one thread
a worker: so on two cores two workers stand against the plain way on two threads. Both networks have
VGG-19's full width; their weights are random, which changes no time.
"""

import argparse
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import measuring
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from generators.styles.adain import SIDE, AdaIN, build_decoder, build_encoder, fast_bfloat16
from segswap.files.folders import image_files
from segswap.files.images import read_image

OUTPUT = 480


class Plain:
    """The published procedure, one image at a time."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.encoder, self.decoder = build_encoder().eval(), build_decoder().eval()
        for layer in (*self.encoder, *self.decoder):
            if isinstance(layer, nn.ReLU):
                layer.inplace = False

    @torch.no_grad()
    def restyle(self, images: list[NDArray], pictures: list[NDArray], alphas: list[float]) -> None:
        """Restyle images, one after another."""
        for image, picture, alpha in zip(images, pictures, alphas, strict=True):
            content, style = (self.encoder(self._tensor(a)) for a in (image, picture))
            (mean, std), (style_mean, style_std) = (
                (a.mean((2, 3), keepdim=True), a.std((2, 3), keepdim=True) + 1e-5)
                for a in (content, style)
            )
            adapted = (content - mean) / std * style_std + style_mean
            made = self.decoder(alpha * adapted + (1 - alpha) * content)[0].permute(1, 2, 0)
            pixels = (made.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
            np.asarray(Image.fromarray(pixels).resize((OUTPUT, OUTPUT)))

    def _tensor(self, image: NDArray) -> torch.Tensor:
        pixels = np.array(Image.fromarray(image).resize((SIDE, SIDE)))
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous() / 255


class Segswap:
    """This project's, as a generator's worker does it."""

    def __init__(self, threads: int) -> None:
        cv2.setNumThreads(0)
        self.network = AdaIN(build_encoder(), build_decoder(), "cpu")
        self.kept: dict[int, torch.Tensor] = {}

    def restyle(self, images: list[NDArray], pictures: list[NDArray], alphas: list[float]) -> None:
        """Restyle images, two at a time."""
        for picture in pictures:
            if id(picture) not in self.kept:
                self.kept[id(picture)] = self.network.statistics(picture)
        self.network.restyle(images, [self.kept[id(p)] for p in pictures], alphas)


def begin(side: type, threads: int, images: list[NDArray], pictures: list[NDArray]) -> None:
    """Set a process up, and warm it up on every style picture."""
    torch.manual_seed(0)
    globals().update(worker=side(threads), images=images, pictures=pictures)
    globals()["worker"].restyle(images[: len(pictures)], pictures, [0.5] * len(pictures))


def seconds(pairs: int) -> float:
    """Seconds an image, over so many pairs."""
    images, pictures, rng = globals()["images"], globals()["pictures"], np.random.default_rng(0)
    chosen = [pictures[rng.integers(len(pictures))] for _ in range(2 * pairs)]

    def restyle() -> None:
        for first in range(0, 2 * pairs, 2):
            part = [images[(first + n) % len(images)] for n in (0, 1)]
            alphas = rng.uniform(size=2).tolist()
            globals()["worker"].restyle(part, chosen[first : first + 2], alphas)

    return measuring.seconds(restyle) / (2 * pairs)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("styles", type=Path, help="folder of style pictures")
    parser.add_argument("--images", type=Path, help="folder of images; by default the pictures")
    parser.add_argument("--pairs", type=int, default=3, help="pairs in one repeat")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    pictures = [read_image(options.styles / name) for name in image_files(options.styles)[:4]]
    folder = options.images or options.styles
    images = [cv2.resize(read_image(folder / n), (OUTPUT, OUTPUT)) for n in image_files(folder)[:8]]
    precision = "bfloat16" if fast_bfloat16(torch.device("cpu")) else "float32"
    print(f"{measuring.machine(torch)}; {precision}; {options.repeats} repeats of {options.pairs} "
          "pairs, in turns")  # fmt: skip
    measuring.print_table(
        ["cores", "", "s/image, median (min, max)", "times the plain speed"],
        (
            row
            for cores in (1, 2)
            for row in rows(cores, images, pictures, options.pairs, options.repeats)
        ),
    )


def rows(
    cores: int, images: list[NDArray], pictures: list[NDArray], pairs: int, repeats: int
) -> Iterator[list[object]]:
    """Rows of the table: both sides on so many cores."""
    sides = {
        "plain": (Plain, 1, cores),  # one process, all threads
        "segswap": (Segswap, cores, 1),  # a worker a core
    }
    spawn = get_context("spawn")
    pools = {
        name: [
            ProcessPoolExecutor(1, spawn, begin, (side, threads, images, pictures))
            for _ in range(processes)
        ]
        for name, (side, processes, threads) in sides.items()
    }

    def together(workers: list[ProcessPoolExecutor]) -> float:
        # Workers at the same time, so that each has only its share of the machine.
        each = [future.result() for future in [w.submit(seconds, pairs) for w in workers]]
        return statistics.mean(each) / len(workers)

    jobs = {name: lambda _, workers=workers: together(workers) for name, workers in pools.items()}
    # The first one waits for the processes' start.
    taken = measuring.in_turns(jobs, repeats, warm_up=True)
    base = statistics.median(taken["plain"])
    for name, values in taken.items():
        times = f"{base / statistics.median(values):.1f}"
        yield [cores, name, measuring.spread(values, 2), times]
    for worker in (worker for workers in pools.values() for worker in workers):
        worker.shutdown()


if __name__ == "__main__":
    main()
