"""What a search costs: the score against the published loop, and a collection of a million images.

    python benchmarks/search_speed.py
    python benchmarks/search_speed.py --images 200000 --channels 1024

The score S(s, t) of batches of pairs, on the grids of segswap-tiny (40 x 40 cells, 128 channels)
and of the transformer at 480 px (30 x 30, 1024), against the same one pair at a time with loops
over the cells, in turns. Then the stages of a search in a large collection: the nearest of a
million made descriptors on disk, on one core, and what comparing and matching an image takes with
segswap-tiny. The features on disk of so many images are not made; their size follows from one
image's.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import faiss
import measuring
import numpy as np
import torch
from measuring import seconds

from pipelines.command.memory import keep_memory
from segswap.matchers.base import Matches, Side
from segswap.matchers.sampling import sample
from segswap.models.model import load
from segswap.models.score import cell_scores, pair_score
from segswap.search.index import Index
from segswap.search.index_files import entry_type
from segswap.search.settings import SHORTLIST

GRIDS = ((40, 128), (30, 1024))  # cells a side, channels
PAIRS = 8


def made_matches(side: int, channels: int) -> Matches:
    """Answers of a matcher for PAIRS pairs, of random numbers."""
    places = [torch.rand(PAIRS, side, side, 2) for _ in range(2)]
    logits = [torch.randn(PAIRS, side, side) for _ in range(2)]
    features = [
        torch.nn.functional.normalize(torch.randn(PAIRS, channels, side, side), dim=1)
        for _ in range(2)
    ]
    return Matches(*map(Side, places, logits, features))


def looped(matches: Matches) -> list[float]:
    """The score of one pair after another with loops over its cells, as the published evaluation
    of artworks does: features put together one by one, a dictionary of lists for the best.
    """
    scores, side = [], matches.source.positions.shape[1]
    for n in range(len(matches.source.positions)):
        places = matches.source.positions[n : n + 1]
        carried = sample(matches.target.mask_logits[n].sigmoid()[None, None], places)[0, 0]
        mask = matches.source.mask_logits[n].sigmoid()
        weight = (mask * carried).flatten()
        x, y = (places[0] * side).long().clamp(max=side - 1).flatten(0, 1).unbind(1)
        cells = list(zip(y.tolist(), x.tolist(), strict=True))
        there = torch.cat([matches.target.features[n][:, r, c][None] for r, c in cells])
        here = matches.source.features[n].flatten(1).T
        values = (here * there).sum(1) * weight
        best: dict[tuple[int, int], list[float]] = {cell: [0.0] for cell in cells}
        for number, cell in enumerate(cells):
            best[cell].append(values[number].item())
        scores.append(float(sum(np.max(values) for values in best.values())))
    return scores


def score_speed(side: int, channels: int, repeats: int) -> None:
    torch.manual_seed(0)
    matches = made_matches(side, channels)
    worst = float((pair_score(matches) - torch.tensor(looped(matches))).abs().max())
    if worst > 1e-3:
        raise RuntimeError(f"the two scores differ by {worst}")
    times = np.array([
        (seconds(lambda: pair_score(matches)), seconds(lambda: looped(matches)))
        for _ in range(repeats)
    ])  # fmt: skip
    ours, theirs = PAIRS / np.median(times, axis=0)
    print(
        f"score, {side} x {side} cells, {channels} channels: {ours:.0f} pairs/s, the loop "
        f"{theirs:.0f} pairs/s: {ours / theirs:.1f} times"
    )


def first_stage(images: int, channels: int, repeats: int) -> None:
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "descriptors.npy"
        shape = (images, channels)
        made = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for first in range(0, images, 65536):
            part = rng.normal(size=(min(65536, images - first), channels)).astype(np.float32)
            made[first : first + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
        made.flush()
        del made
        descriptors = np.load(path, mmap_mode="r")
        index = Index(Path(folder), {"skipped": []}, np.zeros(images, entry_type(80)), descriptors)
        query = np.array(descriptors[images // 3])
        first_time = seconds(lambda: index.nearest(query, SHORTLIST))
        times = [seconds(lambda: index.nearest(query, SHORTLIST)) for _ in range(repeats)]
        if index.nearest(query, 1)[0][0] != images // 3:
            raise RuntimeError("the query itself is not the nearest")
    print(
        f"first stage: the {SHORTLIST} nearest of {images} x {channels} on one core in "
        f"{1000 * statistics.median(times):.0f} ms ({1000 * min(times):.0f} to "
        f"{1000 * max(times):.0f}), {1000 * first_time:.0f} ms the first time; descriptors "
        f"{images * channels * 4 / 2**30:.2f} GiB, table of images "
        f"{images * entry_type(80).itemsize / 2**30:.2f} GiB"
    )


@torch.inference_mode()
def matching(images: int, repeats: int) -> None:
    model = load("segswap-tiny")
    pictures = [np.random.default_rng(n).integers(0, 256, (480, 640, 3), np.uint8) for n in (0, 1)]
    encoding = statistics.median(
        seconds(lambda: model.encode(pictures[:1])) for _ in range(repeats)
    )
    query, other = (model.encode([picture]) for picture in pictures)
    target = other.half()

    def match() -> None:
        cell_scores(model.matcher.match(query, target.float()).float()).cpu()

    cells = model.matcher.compared(other).half().repeat(4, 1, 1, 1)
    own = model.matcher.compared(query)[0].flatten(1).T

    def compare() -> None:
        torch.matmul(own, cells.float().flatten(2)).amax(2).sum(1).cpu()

    compare()
    compared = statistics.median(seconds(compare) for _ in range(repeats)) / 4
    match()
    each = statistics.median(seconds(match) for _ in range(repeats))
    size = (sum(tensor.numel() for tensor in other.values()) + own.numel()) * 2
    print(
        f"segswap-tiny: encoding {1000 * encoding:.0f} ms an image; comparing the cells of a whole "
        f"query {1000 * compared:.1f} ms an image; matching {1000 * each:.0f} ms an image, "
        f"{SHORTLIST * each:.0f} s a shortlist of {SHORTLIST}; "
        f"features {size / 2**20:.2f} MiB an image, {size * images / 2**40:.2f} TiB of {images}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--channels", type=int, default=128, help="of a descriptor")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    keep_memory()  # as every command does
    print(
        f"{measuring.machine(torch, faiss)}; {torch.get_num_threads()} threads, "
        f"{options.repeats} repeats"
    )
    for side, channels in GRIDS:
        score_speed(side, channels, options.repeats)
    first_stage(options.images, options.channels, options.repeats)
    matching(options.images, options.repeats)


if __name__ == "__main__":
    main()
